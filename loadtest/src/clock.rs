//! The only clock of the harness: wall time that never jumps during a run.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use crate::moment::Moment;

static START: LazyLock<(Instant, Moment)> = LazyLock::new(|| (Instant::now(), Moment::from_system(SystemTime::now())));

/// Now: the wall clock at the first call, carried on by the monotonic clock.
pub fn now() -> Moment {
    let (instant, moment) = *START;
    moment.plus(instant.elapsed())
}

/// The runtime's instant for a moment; a moment that has passed is now.
pub fn instant(at: Moment) -> tokio::time::Instant {
    let (instant, moment) = *START;
    let from_start = Duration::from_micros(at.0.saturating_sub(moment.0));
    (instant + from_start).max(Instant::now()).into()
}
