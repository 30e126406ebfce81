//! The demo broadcast: a test picture with a running clock and a beep each second, made by `tests/picture/gen.py`.
//!
//! Published with [`crate::publisher::Publish::start_at`] at the Unix epoch, the picture tells its own age: the frame
//! that shows clip time *t* leaves when `Unix ms mod loop_ms = t`, and the picture carries *t* twice, for people as
//! digits and for machines as a block code across its top (`tests/picture/blockcode.py`). Glass-to-glass latency on
//! this machine is therefore `(Unix ms − t) mod loop_ms`, read off the picture alone.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::clip::Clip;

/// Length of the demo loop in milliseconds; the player page counts on it.
pub const LOOP_MS: u64 = 16_000;

static CLIP: LazyLock<Arc<Clip>> = LazyLock::new(|| {
    let file = Bytes::from_static(include_bytes!("../demo/clip.flv"));
    Arc::new(Clip::from_flv(file).expect("the clip in the repository is checked by a test"))
});

/// The demo clip, parsed once.
pub fn clip() -> Arc<Clip> {
    Arc::clone(&CLIP)
}
