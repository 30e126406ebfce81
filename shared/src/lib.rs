//! The language both nodes of Weir speak.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | stream keys, rendition names, epochs: parsed once, never mixed up |
//! | [`media`] | media time, the only place that rescales |
//! | [`hls`] | positions, reload directives, playlists as data, text and deltas |
//! | [`hold`] | the only wait for "position reached or deadline" |
//! | [`retry`] | capped back-off with jitter |
//!
//! Files that hold protocol logic take bytes and a `now` and give back values; they import no runtime, socket or clock.

pub mod hls;
pub mod hold;
pub mod id;
pub mod media;
pub mod retry;
