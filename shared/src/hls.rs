//! HLS as values: positions and waits, reload directives, playlists as data, their text, their deltas, object names.
//!
//! Section numbers are those of draft-pantos-hls-rfc8216bis.

pub mod name;
pub mod playlist;
pub mod position;
pub mod reload;
