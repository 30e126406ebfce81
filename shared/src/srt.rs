//! SRT as it is on the wire (draft-sharabayko-srt-01, live mode), for the origin, which listens, and the load harness, which
//! calls. Pure: bytes in, values out, and back.
//!
//! | file | holds |
//! |---|---|
//! | `wire.rs` | packets: headers and control packets |
//! | `sequence.rs` | packet numbers, which wrap |
//! | `hello.rs` | handshakes and their extensions |
//! | `reject.rs` | why a caller is turned away, in the protocol's codes |
//! | `crypto.rs` | keys and payload encryption |
//!
//! Who may publish, what is asked for again and when, is no business of this module: see the origin's `ingest/srt`.

pub mod crypto;
pub mod hello;
pub mod reject;
pub mod sequence;
pub mod wire;
