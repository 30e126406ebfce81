//! What both nodes must know of media: time.

pub mod time;
