//! Weir's load harness: simulated broadcasters over public protocols, without ffmpeg.
//!
//! A broadcast goes through these modules in this order:
//!
//! | module | holds |
//! |---|---|
//! | [`tag`] | what a publisher sends: tags with a time, and the [`tag::Source`] they come from |
//! | [`flv`], [`clip`], [`demo`] | source 1: an FLV clip, looped without a joint; the clip that comes with Weir |
//! | [`synthetic`] | source 2: made-up H.264 and AAC frames that carry their number |
//! | [`pace`] | when the next tag is due (pure) |
//! | [`publisher`] | the task that sends a source in real time |
//! | [`rtmp`] | the client's side of an RTMP publish |

pub mod clip;
pub mod demo;
pub mod flv;
pub mod pace;
pub mod publisher;
pub mod rtmp;
pub mod synthetic;
pub mod tag;
