//! Telling the outside world, at least once: an event is written down in the transaction of the change it tells of,
//! together with one delivery per endpoint that wants it. What is committed survives `kill -9`.
//!
//! Read in the order of an event's way: `outbox.rs` (into the database) → `queue.rs` (what is due, and whose turn it is)
//! → `dispatch.rs` (how many at once, to whom) → `post.rs` (the request itself) → back to `queue.rs` (what became of it).
//! `endpoints.rs` keeps who wants to be told, `retention.rs` what is forgotten when.
//!
//! Before this: `events.rs`. Beside this: `sse.rs`, which reads the same events. Never on the media path.

mod dispatch;
mod endpoints;
mod kept;
mod metrics;
mod outbox;
mod post;
mod queue;
mod retention;

use std::{sync::Arc, time::SystemTime};

pub use dispatch::{Dispatcher, Settings};
pub use endpoints::{ENDPOINTS_PER_PROJECT, Endpoint, EndpointId, NotAdded};
pub use kept::Kept;
pub use metrics::Metrics;
pub use outbox::{DurableOutbox, PENDING_PER_ENDPOINT, emit};
pub use post::{Failure, Outcome, Poster, Resolve, Resolving, SystemResolver, TIMEOUT};
pub use queue::{Attempt, Delivery, DeliveryState};
pub use retention::Limits as Retention;

use super::store::{self, Millis};

/// The time, as an argument: tests bring their own.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// The machine's clock.
pub fn wall_clock() -> Clock {
    Arc::new(store::now)
}

pub fn system_time(at: Millis) -> SystemTime {
    let since = std::time::Duration::from_millis(u64::try_from(at).unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A name that sorts by time: a UUID of version 7.
fn fresh_id(at: Millis) -> String {
    super::events::EventId::new(system_time(at), rand::random()).to_string()
}
