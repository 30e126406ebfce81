//! The language both nodes of Weir speak.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | stream keys, rendition names, epochs: parsed once, never mixed up |
//! | [`media`] | media time, the only place that rescales |
//! | [`hls`] | positions, reload directives, playlists as data, text and deltas |
//! | [`directory`] | what an edge must know of a stream, and how it asks |
//! | [`playback`] | signed addresses and session tickets: mint and check |
//! | [`srt`] | SRT's packets, handshakes and keys, for whoever listens or calls |
//! | [`hold`] | the only wait for "position reached or deadline" |
//! | [`retry`] | capped back-off with jitter |
//! | [`serve`] | HTTP: accept loops, TLS, responses, draining |
//! | [`config`], [`metrics`], [`log`] | what every binary needs |
//!
//! Files that hold protocol logic take bytes and a `now` and give back values; they import no runtime, socket or clock.

pub mod config;
pub mod directory;
pub mod hls;
pub mod hold;
pub mod id;
pub mod log;
pub mod media;
pub mod metrics;
pub mod playback;
pub mod retry;
pub mod serve;
pub mod srt;
