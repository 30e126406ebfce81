//! What the streams of one phase have out, and their answers: playlists and objects, held until they are due.
//!
//! Before this: [`super`], which knows whose stream is meant. After this: [`crate::content`].

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use weir_shared::{
    hls::{
        delta,
        name::MediaObject,
        playlist::MediaPlaylist,
        position::{PartNumber, PartVerdict, Verdict, Want, answer, answer_part},
        reload::{Reload, Skip},
        write,
    },
    hold::{Held, hold},
    id::RenditionName,
    serve::{
        body::Body,
        gzip::gzip,
        respond::{self, Asked, PlaylistLifetimes},
    },
};

use super::{Answer, serve::CutShort};
use crate::{
    clock,
    content::Content,
    defect::{Defect, Defects},
    moment::Moment,
};

/// Longest hold, in target durations (section 6.2.5.2); then 503.
const HOLD_TARGET_DURATIONS: u32 = 3;
/// When [`Defect::StallRendition`] begins.
const STALL_AFTER: Duration = Duration::from_secs(5);

/// Streams that tick in step.
pub(super) struct Phase {
    pub content: Content,
    defects: Defects,
    /// How many parts are complete.
    parts: watch::Receiver<u64>,
    /// When each of the latest parts was complete, by number modulo the length.
    completed: Vec<AtomicU64>,
    started: Moment,
    texts: Mutex<Texts>,
}

/// Playlists rendered for one state; all streams of a phase share them, because their names are relative.
#[derive(Default)]
struct Texts {
    parts: u64,
    made: HashMap<(usize, bool, bool, bool), Bytes>,
}

impl Phase {
    pub(super) fn new(content: Content, defects: Defects, started: Moment) -> (watch::Sender<u64>, Self) {
        let kept = u64::from(content.shape.window_segments) * u64::from(content.shape.parts_per_segment) * 2 + 8;
        let now = content.parts_at(started);
        let (publish, parts) = watch::channel(now);
        let completed = (0..kept).map(|_| AtomicU64::new(0)).collect();
        let phase = Self {
            content,
            defects,
            parts,
            completed,
            started,
            texts: Mutex::default(),
        };
        for number in now.saturating_sub(kept)..now {
            phase
                .slot(number)
                .store(phase.content.completes(number).0, Ordering::Relaxed);
        }
        (publish, phase)
    }

    /// Publishes part after part on the grid.
    pub(super) async fn tick(&self, publish: watch::Sender<u64>) {
        loop {
            let next = *publish.borrow();
            tokio::time::sleep_until(clock::instant(self.content.completes(next))).await;
            let now = clock::now();
            let parts = self.content.parts_at(now).max(next + 1);
            for number in next..parts {
                self.slot(number).store(now.0, Ordering::Relaxed);
            }
            publish.send_replace(parts);
        }
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        let length = (self.completed.len() as u64).max(1);
        self.completed.get((number % length) as usize).unwrap_or(&NOWHERE)
    }

    /// How many parts of this rendition are out: fewer than there are where it stands still.
    fn visible(&self, parts: u64, stream: u32, rendition: usize) -> u64 {
        if !self.defects.has(Defect::StallRendition) || stream != 0 || rendition != 0 {
            return parts;
        }
        parts.min(self.content.parts_at(self.started.plus(STALL_AFTER)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(1) * self.content.shape.target_duration_seconds() * HOLD_TARGET_DURATIONS
    }

    pub(super) async fn media_playlist(
        &self,
        asked: Asked<'_>,
        stream: u32,
        name: &RenditionName,
        query: Option<&str>,
    ) -> Answer {
        let rendition = self.content.rendition(name).ok_or(StatusCode::NOT_FOUND)?;
        let reload = Reload::parse(query).map_err(|_| StatusCode::BAD_REQUEST)?;
        let decide = |parts: &u64| {
            let parts = self.visible(*parts, stream, rendition);
            let edge = self.content.edge(parts);
            match answer(&edge, reload.want) {
                Verdict::Answer => Some(Ok(parts)),
                Verdict::TooFarAhead => Some(Err(StatusCode::BAD_REQUEST)),
                Verdict::Wait if self.defects.at(Defect::AnswerEarly, parts) => Some(Ok(parts)),
                Verdict::Wait => None,
            }
        };
        let parts = match hold(&mut self.parts.clone(), self.deadline(), decide).await {
            Held::Ready(parts) => parts?,
            Held::TimedOut | Held::Gone => return Err(StatusCode::SERVICE_UNAVAILABLE),
        };
        let stale = self.defects.at(Defect::StalePlaylist, parts);
        let parts = if stale { parts.saturating_sub(3) } else { parts };
        let compressed = asked.gzip();
        let text = self.text(
            rendition,
            name,
            parts,
            reload.skip == Skip::Yes,
            compressed,
            stream == 0,
        );
        let lifetimes = PlaylistLifetimes::new(self.content.shape.target_duration_seconds());
        let lifetime = if reload.want == Want::Now {
            lifetimes.plain
        } else {
            lifetimes.blocked
        };
        Ok(respond::playlist(asked, text, compressed, lifetime))
    }

    /// The text for a state, rendered once.
    fn text(&self, index: usize, name: &RenditionName, parts: u64, skip: bool, zip: bool, first: bool) -> Bytes {
        let first = first && self.defects.has(Defect::StallRendition);
        let key = (index, skip, zip, first);
        let mut texts = self.texts.lock();
        if let Some(text) = texts.made.get(&key).filter(|_| texts.parts == parts) {
            return text.clone();
        }
        let mut full = self.content.playlist(name, parts);
        self.falsify(&mut full);
        if first && index != 0 {
            self.report_stalled(&mut full, parts);
        }
        let playlist = if skip { delta::delta(&full) } else { full };
        let text = write::write(&playlist);
        let text = if zip { gzip(text.as_bytes()) } else { text.into() };
        if texts.parts != parts {
            texts.made.clear();
            texts.parts = parts;
        }
        texts.made.insert(key, text.clone());
        text
    }

    fn falsify(&self, playlist: &mut MediaPlaylist) {
        if self.defects.has(Defect::SkipPart) {
            for segment in &mut playlist.segments {
                segment.parts.retain(|part| {
                    let number = part
                        .uri
                        .rsplit_once("/p")
                        .and_then(|(_, n)| n.strip_suffix(".m4s")?.parse().ok());
                    part.independent || !number.is_some_and(|n| self.defects.at(Defect::SkipPart, n))
                });
            }
        }
    }

    /// What the other renditions say of the one that stands still.
    fn report_stalled(&self, playlist: &mut MediaPlaylist, parts: u64) {
        let last = self.visible(parts, 0, 0).saturating_sub(1);
        let edge = self.content.edge(last);
        if let Some(report) = playlist.rendition_reports.first_mut() {
            report.last_msn = edge.open;
            report.last_part = Some(edge.open_parts);
        }
    }

    async fn part(&self, asked: Asked<'_>, stream: u32, name: &RenditionName, number: PartNumber) -> Answer {
        let rendition = self.content.rendition(name).ok_or(StatusCode::NOT_FOUND)?;
        let decide = |parts: &u64| {
            let parts = self.visible(*parts, stream, rendition);
            match answer_part(&self.content.edge(parts), number) {
                PartVerdict::Lookup if self.content.held(number.0, parts) => Some(true),
                PartVerdict::Lookup | PartVerdict::Absent => Some(false),
                PartVerdict::Wait => None,
            }
        };
        match hold(&mut self.parts.clone(), self.deadline(), decide).await {
            Held::Ready(true) => Ok(self.media(asked, name, self.part_bytes(stream, rendition, number.0), number.0)),
            Held::Ready(false) => Err(StatusCode::NOT_FOUND),
            Held::TimedOut | Held::Gone => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    pub(super) async fn object(
        &self,
        asked: Asked<'_>,
        stream: u32,
        name: &RenditionName,
        object: MediaObject,
    ) -> Answer {
        match object {
            MediaObject::Part(number) => self.part(asked, stream, name, number).await,
            MediaObject::Init(_) => Ok(self.media(asked, name, vec![self.content.init()], u64::MAX)),
            MediaObject::Segment(msn) => {
                let index = self.content.rendition(name).ok_or(StatusCode::NOT_FOUND)?;
                let parts = *self.parts.borrow();
                let range = self.content.segment_parts(msn, parts).ok_or(StatusCode::NOT_FOUND)?;
                let chunks = range
                    .flat_map(|number| self.part_bytes(stream, index, number))
                    .collect();
                Ok(self.media(asked, name, chunks, u64::MAX - msn.0))
            }
        }
    }

    fn part_bytes(&self, stream: u32, rendition: usize, number: u64) -> Vec<Bytes> {
        let streams = self.content.shape.streams;
        let swapped = self.defects.at(Defect::SwapStreams, number);
        let stream = if swapped { (stream + 1) % streams } else { stream };
        let completed = Moment(self.slot(number).load(Ordering::Relaxed));
        self.content.part(stream, rendition, number, completed)
    }

    fn media(&self, asked: Asked<'_>, name: &RenditionName, chunks: Vec<Bytes>, number: u64) -> Response<Body> {
        let etag = HeaderValue::try_from(format!("\"{name}-{number}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
        let cut = chunks
            .first()
            .cloned()
            .filter(|_| self.defects.at(Defect::Truncate, number));
        let mut response = respond::media(asked, chunks, HeaderValue::from_static("video/mp4"), etag);
        if let Some(cut) = cut {
            // Content-Length stays: the connection ends in the middle of the body.
            response.extensions_mut().insert(CutShort(cut));
        }
        response
    }
}
