//! A recording as one file: the fragments of a video and an audio rendition behind a common header, as fragmented MP4
//! (14496-12 section 8.8). Pure.
//!
//! Every byte's place is known from the sizes alone: fragments are changed in place (track, time, running number), never in
//! length. So any range of the file can be made from the segments that it touches, and nothing is written down.
//!
//! Before this: `manifest.rs` ([`Summary`]). After this: `control/api/download.rs`.

use super::{
    boxes::{boxes, descend, find, u32_at, u64_at},
    manifest::{Summary, SummaryObject, SummaryRendition},
};

/// Fragments of one segment whose running numbers are kept apart from the next one's.
const FRAGMENTS: u32 = 1024;

/// Why a recording can't be one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOneFile {
    #[error("nothing of it is stored")]
    Empty,
    /// A file has one description of each track.
    #[error("the encoder's settings changed in it: it can be played, but not as one file")]
    SettingsChanged,
    #[error("its init sections can't be read")]
    BadInit,
}

/// What has to be read before the file's beginning can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Of each track: its init section and its first segment.
    pub tracks: Vec<(String, String)>,
}

/// A stretch of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The segment it is made of.
    pub name: String,
    pub bytes: u64,
    /// Index of the track in the file.
    pub track: usize,
    pub number: u32,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub header: Vec<u8>,
    pub pieces: Vec<Piece>,
    /// Of each track: decode time at which the file begins, in its own time scale.
    starts: Vec<u64>,
}

/// The tracks that make the file: the first video and the first audio rendition.
fn tracks(summary: &Summary) -> Vec<&SummaryRendition> {
    let with = |word: &str| {
        let mut named = summary.renditions.iter();
        named.find(|r| r.name.as_str().starts_with(word) && !r.segments.is_empty())
    };
    with("video").into_iter().chain(with("audio")).collect()
}

/// What to read first.
pub fn sources(summary: &Summary) -> Result<Sources, NotOneFile> {
    let mut found = Vec::new();
    for track in tracks(summary) {
        let (Some(init), Some(first)) = (track.inits.first(), track.segments.first()) else {
            return Err(NotOneFile::Empty);
        };
        if track.inits.iter().any(|other| other.sha256 != init.sha256) {
            return Err(NotOneFile::SettingsChanged);
        }
        found.push((init.name.clone(), first.name.clone()));
    }
    match found.is_empty() {
        true => Err(NotOneFile::Empty),
        false => Ok(Sources { tracks: found }),
    }
}

/// Plans the file from what [`sources`] named: init sections and first segments, in the same order.
pub fn plan(summary: &Summary, read: &[(Vec<u8>, Vec<u8>)]) -> Result<Plan, NotOneFile> {
    let tracks = tracks(summary);
    let mut scales = Vec::new();
    let mut begins = Vec::new();
    for (init, first) in read {
        let (_, mdhd) = descend(init, &[b"moov", b"trak", b"mdia", b"mdhd"]).ok_or(NotOneFile::BadInit)?;
        let scale = u32_at(mdhd, 12).filter(|scale| *scale > 0).ok_or(NotOneFile::BadInit)?;
        let (_, tfdt) = descend(first, &[b"moof", b"traf", b"tfdt"]).ok_or(NotOneFile::BadInit)?;
        scales.push(u64::from(scale));
        begins.push(u64_at(tfdt, 4).ok_or(NotOneFile::BadInit)?);
    }
    // The earliest of the tracks is time zero.
    let earliest = begins
        .iter()
        .zip(&scales)
        .map(|(begin, scale)| u128::from(*begin) * 1_000_000 / u128::from(*scale))
        .min()
        .ok_or(NotOneFile::Empty)?;
    let start = |scale: &u64| u64::try_from(earliest * u128::from(*scale) / 1_000_000).unwrap_or(0);
    let mut order: Vec<(usize, usize, &SummaryObject)> = Vec::new();
    for (index, track) in tracks.iter().enumerate() {
        order.extend(
            track
                .segments
                .iter()
                .enumerate()
                .map(|(at, segment)| (at, index, segment)),
        );
    }
    // Alternating, so that picture and sound that belong together lie together.
    order.sort_by_key(|(at, index, _)| (*at, *index));
    let pieces = order.into_iter().zip(0u32..).map(|((_, track, segment), at)| Piece {
        name: segment.name.clone(),
        bytes: segment.bytes,
        track,
        number: at.wrapping_mul(FRAGMENTS).wrapping_add(1),
    });
    Ok(Plan {
        header: header(read, summary.duration_ms).ok_or(NotOneFile::BadInit)?,
        pieces: pieces.collect(),
        starts: scales.iter().map(start).collect(),
    })
}

impl Plan {
    pub fn total_bytes(&self) -> u64 {
        self.header.len() as u64 + self.pieces.iter().map(|piece| piece.bytes).sum::<u64>()
    }

    /// A segment as it is in the file. Its length stays.
    pub fn made(&self, piece: &Piece, mut segment: Vec<u8>) -> Vec<u8> {
        let start = self.starts.get(piece.track).copied().unwrap_or(0);
        let moofs: Vec<(usize, usize)> = boxes(&segment)
            .filter(|found| found.kind == *b"moof")
            .map(|found| (found.content_start(), found.end()))
            .collect();
        for ((begin, end), number) in moofs.into_iter().zip(piece.number..) {
            let Some(moof) = segment.get_mut(begin..end) else {
                continue;
            };
            // Positions first, then bytes: boxes borrow what is changed.
            let sequence = descend(moof, &[b"mfhd"]).map(|(at, _)| at + 4);
            let track = descend(moof, &[b"traf", b"tfhd"]).map(|(at, _)| at + 4);
            let time = descend(moof, &[b"traf", b"tfdt"]).and_then(|(at, tfdt)| Some((at + 4, u64_at(tfdt, 4)?)));
            write(moof, sequence, &number.to_be_bytes());
            write(moof, track, &track_id(piece.track).to_be_bytes());
            if let Some((at, time)) = time {
                write(moof, Some(at), &time.saturating_sub(start).to_be_bytes());
            }
        }
        segment
    }
}

fn track_id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(0).saturating_add(1)
}

fn write(bytes: &mut [u8], at: Option<usize>, value: &[u8]) {
    let Some(at) = at else { return };
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// `ftyp` and a `moov` with all tracks, from the tracks' own init sections.
fn header(read: &[(Vec<u8>, Vec<u8>)], duration_ms: u64) -> Option<Vec<u8>> {
    let (first, _) = read.first()?;
    let ftyp = find(first, b"ftyp")?;
    let first_moov = find(first, b"moov")?.content;
    let mvhd = find(first_moov, b"mvhd")?;
    let movie_scale = u32_at(mvhd.content, 12)?;
    let mut moov = first_moov.get(mvhd.start..mvhd.end())?.to_vec();
    // next_track_ID stands at the end of mvhd.
    let next = moov.len().checked_sub(4);
    write(&mut moov, next, &track_id(read.len()).to_be_bytes());
    let mut trexes = Vec::new();
    for (index, (init, _)) in read.iter().enumerate() {
        let content = find(init, b"moov")?.content;
        let id = track_id(index).to_be_bytes();
        let trak = find(content, b"trak")?;
        let mut trak = content.get(trak.start..trak.end())?.to_vec();
        // tkhd of version 0: flags, created, changed, track_ID.
        let (tkhd, _) = descend(&trak, &[b"trak", b"tkhd"])?;
        write(&mut trak, Some(tkhd + 12), &id);
        moov.extend(trak);
        let mvex = find(content, b"mvex")?.content;
        let trex = find(mvex, b"trex")?;
        let mut trex = mvex.get(trex.start..trex.end())?.to_vec();
        write(&mut trex, Some(12), &id);
        trexes.extend(trex);
    }
    let duration = u128::from(duration_ms) * u128::from(movie_scale) / 1000;
    let mut mehd = 0x0100_0000_u32.to_be_bytes().to_vec();
    mehd.extend(u64::try_from(duration).unwrap_or(u64::MAX).to_be_bytes());
    let mut mvex = boxed(b"mehd", &mehd)?;
    mvex.extend(trexes);
    moov.extend(boxed(b"mvex", &mvex)?);
    let mut out = first.get(ftyp.start..ftyp.end())?.to_vec();
    out.extend(boxed(b"moov", &moov)?);
    Some(out)
}

fn boxed(kind: &[u8; 4], content: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(content.len().checked_add(8)?).ok()?;
    let mut out = size.to_be_bytes().to_vec();
    out.extend(kind);
    out.extend(content);
    Some(out)
}
