//! SRT ingest (draft-sharabayko-srt-01, live mode): encoders call, an MPEG transport stream comes out.
//!
//! | file | holds |
//! |---|---|
//! | `wire.rs` `hello.rs` `sequence.rs` | packets, handshakes and numbers as they are on the wire |
//! | `cookie.rs` `handshake.rs` `reject.rs` | the handshake: stateless until the cookie is back |
//! | `streamid.rs` | what a stream id asks for |
//! | `crypto.rs` | keys and payload encryption |
//! | `clock.rs` `receiver.rs` `acks.rs` | play times, the buffer and its holes, acknowledgements |
//! | `session.rs` | one publish: all of the above together |

pub mod acks;
pub mod clock;
pub mod cookie;
pub mod crypto;
pub mod handshake;
pub mod hello;
pub mod receiver;
pub mod reject;
pub mod sequence;
pub mod session;
pub mod streamid;
pub mod wire;
