//! The caller's side of an SRT publish in live mode: what an encoder sends, and what it does about losses.
//!
//! [`session`] holds the socket; [`url`] and [`caller`] are pure. Packets, handshakes and encryption are
//! [`weir_shared::srt`]'s.

pub mod caller;
pub mod session;
pub mod url;

pub use session::Session;
pub use url::PublishUrl;
