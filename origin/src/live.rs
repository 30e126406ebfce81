//! Live streams: the one task that writes a stream ([`pipeline`]), what readers see of it ([`snapshot`], [`master`]), and
//! where they find it ([`registry`]).
//!
//! | file | holds |
//! |---|---|
//! | `registry.rs`, `seats.rs` | who may publish now; stream key → life of a stream |
//! | `feed.rs`, `standby.rs` | one publisher; what it sent while another was shown |
//! | `pipeline.rs`, `pipeline/input.rs`, `orders.rs` | the task, what it shows, what it is told to do |
//! | `lifecycle.rs`, `failover.rs`, `splice.rs` | its decisions (pure): grace, primary and backup, one timeline |
//! | `cushion.rs`, `slate.rs` | the resilient flavour, the operator's picture for it |
//! | `packager.rs`, `lane.rs`, `track.rs` | renditions |
//! | `clock_map.rs`, `rates.rs` | media time of a stream; bits and frames of a track |
//! | `snapshot.rs`, `text.rs`, `master.rs` | what readers see, and how it is written cheaply |
//! | `shared.rs` | part bytes that both flavours have |
//! | `memory.rs` | what windows hold in memory |
//! | `status.rs`, `health.rs` | what others are told |
//!
//! Before this: `ingest`, `package`. Beside it: `dvr`. After this: `deliver`.

mod clock_map;
mod cushion;
pub mod failover;
mod feed;
pub mod health;
mod lane;
pub mod lifecycle;
pub mod master;
pub mod memory;
mod orders;
mod packager;
pub mod pipeline;
mod rates;
pub mod registry;
mod seats;
mod shared;
pub mod slate;
pub mod snapshot;
pub mod splice;
pub mod standby;
pub mod status;
pub mod text;
mod track;

pub use lane::Settings;
