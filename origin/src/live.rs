//! Live streams: the one task that writes a stream ([`pipeline`]), what readers see of it ([`snapshot`]), and where they
//! find it ([`registry`]).
//!
//! Before this: `ingest`, `package`. After this: `deliver`.

pub mod failover;
pub mod lifecycle;
pub mod master;
pub mod pipeline;
pub mod registry;
pub mod snapshot;
mod splice;
mod standby;
mod track;
