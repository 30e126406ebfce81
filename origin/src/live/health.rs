//! What a stream's input is like, in figures and in plain words: for the admin listing, the API and metrics.
//!
//! Before this: `live/pipeline.rs`, which renews it about once a second. After this: whoever lists streams.

pub mod meter;

use std::{collections::BTreeSet, sync::atomic::AtomicBool, sync::atomic::Ordering, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;

pub use self::meter::{InputReport, Meter, TrackReport, Warning};
use super::{master::Flavour, memory::Trouble};
use crate::{metrics::Metrics, package::resilience::Counts};

/// One publisher, as listed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublisherReport {
    /// `<key>/1` is 1.
    pub variant: u8,
    /// `primary` or `backup`.
    pub slot: &'static str,
    /// Viewers see this one.
    pub shown: bool,
    /// Media comes.
    pub sends: bool,
    #[serde(flatten)]
    pub input: InputReport,
}

/// A stream's condition. Written by its pipeline, read by anyone.
#[derive(Debug, Default)]
pub struct Health {
    newest: Mutex<HealthReport>,
    key_frames_too_rare: AtomicBool,
    /// What is wrong with the past of the direct and of the resilient playlists.
    past: Mutex<[Option<Trouble>; 2]>,
}

/// A stream's condition at one moment.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    pub publishers: Vec<PublisherReport>,
    /// Media bytes held in the windows.
    pub window_bytes: u64,
    /// Frames that could not be packaged, mostly those before a first key frame.
    pub frames_dropped: u64,
    pub resilience: ResilienceReport,
    /// In plain words, with the remedy.
    pub warnings: Vec<String>,
}

/// What the resilient playlists live on.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResilienceReport {
    /// How long they can go on without new input: of all variants, the shortest.
    pub cushion_seconds: Option<f64>,
    /// Some variant shows a held picture or silence now.
    pub filling: bool,
    /// Video (or audio, in a stream without) that was filled so far.
    pub filler_seconds: f64,
    /// Times the input of a track was missing for longer than the cushion.
    pub gaps: u64,
    /// Frames that came after their time had been filled.
    pub frames_late: u64,
    /// Media bytes held in the resilient windows.
    pub window_bytes: u64,
}

impl Health {
    /// The newest figures.
    pub fn report(&self) -> HealthReport {
        let mut report = self.newest.lock().clone();
        let told: BTreeSet<String> = report
            .publishers
            .iter()
            .flat_map(|publisher| &publisher.input.warnings)
            .map(Warning::to_string)
            .collect();
        report.warnings = told.into_iter().collect();
        if self.key_frames_too_rare.load(Ordering::Relaxed) {
            report.warnings.push(
                "key frames are further apart than the target duration; set the encoder's key-frame interval to 1–2 s"
                    .to_owned(),
            );
        }
        let past = self.past.lock().into_iter().flatten().next();
        report.warnings.extend(past.map(|trouble| trouble.message().to_owned()));
        report
    }

    /// Whether viewers can go back as far as they should.
    pub(super) fn past(&self, flavour: Flavour, trouble: Option<Trouble>) {
        let [direct, resilient] = &mut *self.past.lock();
        match flavour {
            Flavour::Direct => *direct = trouble,
            Flavour::Resilient => *resilient = trouble,
        }
    }

    /// A segment had to be cut without a key frame.
    pub(super) fn forced_cut(&self, target_duration_seconds: u32) {
        if !self.key_frames_too_rare.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target_duration_seconds,
                "key frames are further apart than the target duration: a segment was cut without one. Players can join \
                 only where a key frame is; set the encoder's key-frame interval to 1 or 2 seconds"
            );
        }
    }

    pub(super) fn packaged(&self, flavour: Flavour, window_bytes: u64, frames_dropped: u64) {
        let mut newest = self.newest.lock();
        match flavour {
            Flavour::Direct => {
                newest.window_bytes = window_bytes;
                newest.frames_dropped = frames_dropped;
            }
            Flavour::Resilient => newest.resilience.window_bytes = window_bytes,
        }
    }

    pub(super) fn cushioned(&self, cushion: Option<Duration>, filling: bool, filled: Duration, counts: Counts) {
        let resilience = &mut self.newest.lock().resilience;
        resilience.cushion_seconds = cushion.map(|cushion| cushion.as_secs_f64());
        resilience.filling = filling;
        resilience.filler_seconds = filled.as_secs_f64();
        resilience.gaps = counts.gaps.iter().sum();
        resilience.frames_late = counts.late.iter().sum();
    }

    /// New figures; a warning that was not there before is counted.
    pub(super) fn renew(&self, publishers: Vec<PublisherReport>, metrics: &Metrics) {
        let kinds = |publishers: &[PublisherReport]| -> BTreeSet<&'static str> {
            let warnings = publishers.iter().flat_map(|publisher| &publisher.input.warnings);
            warnings.map(Warning::as_str).collect()
        };
        let mut newest = self.newest.lock();
        let before = kinds(&newest.publishers);
        for warning in kinds(&publishers).difference(&before) {
            metrics.ingest_warnings.with_label_values(&[warning]).inc();
        }
        newest.publishers = publishers;
    }
}
