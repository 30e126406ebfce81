//! Weir's origin: takes a broadcaster's push, cuts it into low-latency HLS parts, publishes immutable snapshots.
//!
//! Read in the order of the data path: [`ingest`] → [`package`] → `live` → `deliver`.

pub mod codec;
pub mod ingest;
pub mod package;
