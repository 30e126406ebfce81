//! Delivery: HTTP for edges and direct players. Every request is a read of the newest snapshot or a bounded wait for the
//! next one.
//!
//! Before this: `live/snapshot.rs`. After this: the socket (`weir_shared::serve`).

pub mod media;
pub mod playlist;
pub mod route;
mod vod;
