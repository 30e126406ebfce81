//! Whole-system tests: an origin and an edge in this process on free ports, our own publisher, real sockets.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | origins and edges on free ports, broadcasts into them |
//! | [`push`] | pushes that get in or don't, relays between encoder and origin |
//! | [`history`] | what a viewer of a whole rendition would have to put up with |
//! | [`client`] | one HTTP request at a time, as a viewer sends it |

pub mod client;
pub mod history;
pub mod push;
pub mod site;
