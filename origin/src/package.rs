//! Packaging: frames in, parts, segments and init sections out. Pure: no socket, task or clock.

pub mod cadence;
pub mod filler;
pub mod fmp4;
pub mod frame;
pub mod keys;
pub mod resilience;
pub mod segmenter;
pub mod slate;
pub mod window;
