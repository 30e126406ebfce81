//! Whole-system tests: an origin and an edge in this process on free ports, our own publisher, real sockets.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | origins and edges on free ports, broadcasts into them |
//! | [`push`] | pushes that get in or don't, relays between encoder and origin |
//! | [`client`] | one HTTP request at a time, as a viewer sends it |

pub mod client;
pub mod push;
pub mod site;
