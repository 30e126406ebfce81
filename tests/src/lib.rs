//! Whole-system tests: an origin and an edge in this process on free ports, our own publisher, real sockets.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | origins and edges on free ports, broadcasts into them |
//! | [`push`] | pushes that get in or don't, relays between encoder and origin |
//! | [`control`] | a control plane without an origin: a database, streams, a clock to turn |
//! | [`receiver`] | a webhook receiver that answers as it is told |
//! | [`rest`] | calls of the REST API, and its event feed |
//! | [`database`] | SQLite and PostgreSQL, each test with its own |
//! | [`api`] | the REST API without a socket |
//! | [`folder`] | folders that are gone when their test is |
//! | [`crash`] | `kill -9` at random moments |
//! | [`victim`] | processes that are killed |
//! | [`record_crash`] | `kill -9` at random moments of a recording |
//! | [`relay`] | a TCP line that can stand still |
//! | [`flood`], [`lossy`] | SRT under a flood of handshakes, and through a link that loses |
//! | [`history`] | what a viewer of a whole rendition would have to put up with |
//! | [`audience`] | viewers beside whom something happens, and how late they hear of a part |
//! | [`client`] | one HTTP request at a time, as a viewer sends it |

pub mod api;
pub mod audience;
pub mod client;
pub mod control;
pub mod crash;
pub mod database;
pub mod flood;
pub mod folder;
pub mod history;
pub mod lossy;
pub mod push;
pub mod receiver;
pub mod record_crash;
pub mod relay;
pub mod rest;
pub mod site;
pub mod victim;
