//! Weir's origin: takes a broadcaster's push, cuts it into low-latency HLS parts, publishes immutable snapshots.
//!
//! Read in the order of the data path: [`ingest`] → [`package`] → [`live`] → [`deliver`]. [`app`] alone knows all of them.

pub mod app;
pub mod codec;
pub mod config;
pub mod control;
pub mod deliver;
pub mod dvr;
pub mod ffmpeg;
pub mod ingest;
pub mod live;
pub mod metrics;
pub mod package;
pub mod record;
