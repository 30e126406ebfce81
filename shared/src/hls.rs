//! HLS as values: positions and waits, reload directives, playlists as data, their text, their deltas, object names.
//!
//! Section numbers are those of draft-pantos-hls-rfc8216bis.

pub mod address;
pub mod date;
pub mod delta;
pub mod multivariant;
pub mod name;
pub mod outline;
pub mod parse;
pub mod playlist;
pub mod position;
pub mod reload;
mod text;
pub mod write;
