//! Packaging: frames in, parts, segments and init sections out. Pure: no socket, task or clock.

pub mod frame;
