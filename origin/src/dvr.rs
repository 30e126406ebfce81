//! The past of a live stream outside memory, and how much of it memory may hold.
//!
//! | file | holds |
//! |---|---|
//! | `budget.rs` | memory for media: of the node, of a stream, of its playlists (pure) |
//! | `cold.rs` | the cold tier: segments on a local disk or in an object store |
//! | `object.rs` | one segment there |
//! | `metrics.rs` | what operators see of both |
//!
//! Before this: `live/memory.rs`, which decides for one stream. After this: the `object_store` crate.

pub mod budget;
pub mod cold;
pub mod metrics;
mod object;
