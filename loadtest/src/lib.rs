//! Weir's load harness: simulated broadcasters over public protocols, without ffmpeg.
//!
//! A broadcast goes through these modules in this order:
//!
//! | module | holds |
//! |---|---|
//! | [`tag`] | what a publisher sends: tags with a time, and the [`tag::Source`] they come from |
//! | [`flv`], [`clip`], [`demo`] | source 1: an FLV clip, looped without a joint; the clip that comes with Weir |
//! | [`synthetic`] | source 2: made-up H.264 and AAC frames that carry their number |
//! | [`pace`], [`rhythm`] | when the next tag is due, and how evenly it is sent (pure) |
//! | [`publisher`] | the task that sends a source in real time |
//! | [`rtmp`] | the client's side of an RTMP publish |
//! | [`mux`], [`srt`] | frames as an MPEG transport stream (pure); the caller's side of an SRT publish |
//!
//! A viewer goes through these:
//!
//! | module | holds |
//! |---|---|
//! | [`moment`], [`clock`] | one kind of time, and the only clock |
//! | [`http`], [`headers`] | requests over HTTP/1.1, 2 and 3; what the headers of an answer say |
//! | [`fleet`], [`arrival`], [`ticket`] | many viewers on few threads, when they come, what they show at the door |
//! | [`listing`] | playlists as viewers use them, read once for all |
//! | [`viewer`] | a player as a state machine (pure) |
//! | [`oracle`], [`rule`] | what must hold, and what did not (pure) |
//! | [`tally`] | what was counted and measured (pure) |
//! | [`run`], [`system`], [`scrape`] | one measured run, and what it and the servers used |
//! | [`report`], [`limits`] | what came out, and whether it is good enough |
//! | [`cli`] | the commands of `weir-loadtest` |
//!
//! Made-up servers, to measure against and to test the oracle with:
//!
//! | module | holds |
//! |---|---|
//! | [`content`], [`stamp`] | a stream by arithmetic (pure) |
//! | [`origin`], [`defect`] | an LL-HLS server of it, honest or lying on purpose |
//! | [`floor`] | a server of it that does as little as possible |

pub mod address;
pub mod arrival;
pub mod cli;
pub mod clip;
pub mod clock;
pub mod content;
pub mod defect;
pub mod demo;
pub mod fleet;
pub mod floor;
pub mod flv;
pub mod headers;
pub mod http;
pub mod limits;
pub mod listing;
pub mod moment;
pub mod mux;
pub mod oracle;
pub mod origin;
pub mod pace;
pub mod publisher;
pub mod relay;
pub mod report;
pub mod rhythm;
pub mod rtmp;
pub mod rule;
pub mod run;
pub mod scenario;
pub mod scrape;
pub mod srt;
pub mod stamp;
pub mod synthetic;
pub mod system;
pub mod tag;
pub mod tally;
#[cfg(test)]
mod theatre;
pub mod ticket;
pub mod viewer;
