//! Weir's edge: follows live playlists, holds and coalesces viewers' requests.
//!
//! Read in the order of a request: [`handle`] → [`target`] → [`auth`] → [`live`] (playlists) or [`cache`] (objects) → [`upstream`].
//! [`app`] alone knows all of them.

pub mod admit;
pub mod answer;
pub mod app;
pub mod auth;
pub mod cache;
pub mod config;
pub mod directory;
pub mod entrance;
pub mod generation;
pub mod handle;
pub mod listen;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod player;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod target;
pub mod upstream;
pub mod viewers;
mod vod;

pub use app::Edge;
