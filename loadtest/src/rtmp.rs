//! The client's side of an RTMP publish: what an encoder says, and what it hears.
//!
//! [`session`] holds the socket; [`url`] and [`reply`] are pure. Handshake, chunk writing and AMF0 writing are
//! rml_rtmp's; what comes from the peer is read by our own bounded reader, because rml_rtmp's recurses and panics on
//! legal and hostile input.

pub mod reply;
pub mod session;
pub mod url;

pub use session::{PublishError, Session, Status};
pub use url::PublishUrl;
