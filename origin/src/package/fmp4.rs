//! CMAF bytes: init sections and parts (ISO/IEC 14496-12, 14496-15, 23000-19).
//!
//! Before this: `package/segmenter.rs` (drafts). After this: `package/window.rs`.

mod boxes;
mod init;
mod part;

pub use init::init_section;
pub use part::part;

/// One track per rendition.
const TRACK_ID: u32 = 1;
