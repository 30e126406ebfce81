//! Whatever an origin sends as a playlist: no panic, and what is accepted is carried on unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_shared::hls::delta::{delta, merge, strip_old_parts};
use weir_shared::hls::{multivariant, parse, write};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(playlist) = multivariant::parse(text) {
        assert_eq!(multivariant::parse(&multivariant::write(&playlist)), Ok(playlist));
    }
    let Ok(mut playlist) = parse::parse(text) else { return };
    assert_eq!(parse::parse(&write::write(&playlist)).as_ref(), Ok(&playlist));
    strip_old_parts(&mut playlist);
    let update = delta(&playlist);
    if playlist.skipped_segments.is_none() {
        assert_eq!(merge(&playlist, update), Ok(playlist));
    } else {
        assert!(merge(&playlist, update).is_err());
    }
});
