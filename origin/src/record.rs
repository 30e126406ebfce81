//! Recording: a reader of the same snapshots as any viewer, which keeps what it reads.
//!
//! ```text
//! Snapshot ─▶ collect (P) ─▶ ledger (P) + journal (local disk) ─▶ upload ─▶ object store ─▶ shelf ─▶ deliver/vod.rs
//! ```
//!
//! A part counts as recorded once it is in the journal on the local disk: from then on no crash loses it. Whole segments
//! go from there to the object store, as often as it takes; a slow or dead store fills the journal up to its limit and
//! never holds up a live stream. After a crash the journal says what is still to be done.
//!
//! Before this: `live/registry.rs` (who is live). After this: `deliver/vod.rs` (playback), `control/recordings.rs` (what the
//! API and webhooks are told).

pub mod boxes;
pub mod collect;
pub mod journal;
pub mod ledger;
pub mod manifest;
pub mod metrics;
pub mod recorder;
pub mod recording;
pub mod register;
pub mod remux;
pub mod shelf;
pub mod store;
pub mod studio;
pub mod thumbnails;
pub mod upload;
