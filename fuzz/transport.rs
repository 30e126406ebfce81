//! What must hold for any transport stream a broadcaster sends. Shared by the fuzz targets and by
//! `origin/tests/fuzz_seeds.rs`.

use std::{collections::BTreeMap, time::Instant};

use weir_origin::{
    ingest::{
        Event,
        ts::{Demuxer, Limits, PACKET_BYTES, Step, TsError},
    },
    package::frame::TrackId,
};

/// What a transport stream amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Media {
    pub codecs: Vec<(TrackId, String)>,
    pub frames: BTreeMap<TrackId, usize>,
    pub dropped: usize,
}

/// A transport stream: the same media, or the same error, however many packets a datagram has; decode times never
/// decrease.
pub(super) fn ts(bytes: &[u8]) -> Result<Media, TsError> {
    let seven = media(bytes, 7 * PACKET_BYTES);
    assert_eq!(media(bytes, PACKET_BYTES), seven);
    seven
}

fn media(bytes: &[u8], datagram: usize) -> Result<Media, TsError> {
    let mut demuxer = Demuxer::new(Limits::default());
    let mut media = Media::default();
    let mut last = BTreeMap::new();
    let now = Instant::now();
    let mut ended = Ok(());
    for payload in bytes.chunks(datagram) {
        ended = demuxer.push(payload, now);
        if ended.is_err() {
            break;
        }
    }
    let ended = ended.and_then(|()| demuxer.finish(now));
    while let Some(step) = demuxer.poll() {
        match step {
            Step::Event { event, .. } => match event {
                Event::Config(id, config) => media.codecs.push((id, config.codec_string())),
                Event::Frame(frame) => {
                    *media.frames.entry(frame.track).or_default() += 1;
                    let last = last.insert(frame.track, frame.dts);
                    assert!(Some(frame.dts) >= last);
                }
                Event::Announced(_) => {}
            },
            Step::Dropped { .. } => media.dropped += 1,
        }
    }
    ended.map(|()| media)
}
