//! What a viewer who saw a rendition from its first listed segment to its last would have to put up with.

use std::time::{Duration, SystemTime};

use weir_shared::hls::playlist::{MediaPlaylist, Segment};

use crate::site::Site;

/// Ticks per second of our video, and of sound as `Synthetic` makes it.
const VIDEO_SCALE: f64 = 90_000.0;
const AUDIO_SCALE: f64 = 48_000.0;

/// One listed segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub discontinuity: bool,
    pub map: Option<String>,
    pub pdt: SystemTime,
    pub duration: Duration,
    /// Decode times of its parts, in ticks.
    pub tfdts: Vec<u64>,
}

/// A rendition's complete segments with their decode times.
#[derive(Debug)]
pub struct History {
    /// Ticks per second.
    scale: f64,
    pub playlist: MediaPlaylist,
    pub segments: Vec<Listed>,
}

/// Holes up to this many seconds are played over by every player (hls.js: `maxBufferHole`).
const BRIDGED: f64 = 0.1;

impl History {
    /// Fetches what is listed now.
    pub async fn read(site: &Site, key: &str, rendition: &str) -> anyhow::Result<Self> {
        let playlist = site.playlist(key, rendition).await?;
        let mut segments = Vec::new();
        for segment in playlist.segments.iter().filter(|segment| segment.uri.is_some()) {
            segments.push(read_segment(site, key, segment).await?);
        }
        Ok(Self {
            scale: match rendition.contains("audio") {
                true => AUDIO_SCALE,
                false => VIDEO_SCALE,
            },
            playlist,
            segments,
        })
    }

    /// Checks that it is one broadcast: no discontinuity, one init section, media time without a hole.
    pub fn assert_continuous(&self) {
        for segment in &self.segments {
            assert!(!segment.discontinuity, "a discontinuity in {:#?}", self.segments);
            assert_eq!(segment.map, self.segments[0].map, "one init section");
        }
        self.assert_clock();
    }

    /// Checks that decode times only grow, that segments follow one another in media time, and that the programme date
    /// never falls behind it.
    pub fn assert_clock(&self) {
        let tfdts: Vec<u64> = self.segments.iter().flat_map(|s| s.tfdts.clone()).collect();
        assert!(tfdts.windows(2).all(|pair| pair[0] < pair[1]), "{tfdts:?}");
        for pair in self.segments.windows(2) {
            let by_media = (pair[1].tfdts[0] - pair[0].tfdts[0]) as f64 / self.scale;
            let hole = by_media - pair[0].duration.as_secs_f64();
            assert!(hole.abs() < BRIDGED, "a hole of {hole} s in {:#?}", self.segments);
            let by_date = pair[1]
                .pdt
                .duration_since(pair[0].pdt)
                .unwrap_or_default()
                .as_secs_f64();
            assert!(
                by_date > by_media - BRIDGED,
                "{by_date} by date, {by_media} by media in {:#?}",
                self.segments
            );
        }
    }

    /// The longest time that no sample covers, in seconds.
    pub fn longest_gap(&self) -> f64 {
        let ends = |s: &Listed| s.pdt + s.duration;
        let gaps = self
            .segments
            .windows(2)
            .map(|pair| pair[1].pdt.duration_since(ends(&pair[0])));
        gaps.map(|gap| gap.unwrap_or_default().as_secs_f64())
            .fold(0.0, f64::max)
    }

    /// How often media is missing for longer than this many seconds.
    pub fn gaps_beyond(&self, seconds: f64) -> usize {
        let ends = |s: &Listed| s.pdt + s.duration;
        let gaps = self
            .segments
            .windows(2)
            .map(|pair| pair[1].pdt.duration_since(ends(&pair[0])));
        gaps.filter(|gap| gap.as_ref().is_ok_and(|gap| gap.as_secs_f64() > seconds))
            .count()
    }
}

async fn read_segment(site: &Site, key: &str, segment: &Segment) -> anyhow::Result<Listed> {
    let uri = segment.uri.clone().unwrap_or_default();
    let body = site.get(&format!("/app/{key}/d/{uri}")).await?.body;
    Ok(Listed {
        discontinuity: segment.discontinuity,
        map: segment.map_uri.clone(),
        pdt: segment.program_date_time.unwrap_or(SystemTime::UNIX_EPOCH),
        duration: segment.duration,
        tfdts: decode_times(&body),
    })
}

/// The `tfdt` of every `moof`, in order.
pub fn decode_times(mut bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some((size, rest)) = bytes.split_first_chunk::<4>() {
        let size = (u32::from_be_bytes(*size) as usize).clamp(8, bytes.len());
        let (this, next) = bytes.split_at(size);
        if rest.starts_with(b"moof") {
            let at = this
                .windows(4)
                .position(|word| word == b"tfdt")
                .expect("a moof has a tfdt");
            // Version 1: after four bytes of version and flags, 64 bits.
            let time: [u8; 8] = this[at + 8..at + 16].try_into().expect("eight bytes");
            found.push(u64::from_be_bytes(time));
        }
        bytes = next;
    }
    found
}
