//! What a stream's input is like, in figures and in plain words: for the admin listing, the API and metrics.
//!
//! Before this: `live/pipeline.rs`, which renews it about once a second. After this: whoever lists streams.

pub mod meter;

use std::{collections::BTreeSet, sync::atomic::AtomicBool, sync::atomic::Ordering};

use parking_lot::Mutex;
use serde::Serialize;

pub use self::meter::{InputReport, Meter, TrackReport, Warning};
use crate::metrics::Metrics;

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
    /// In plain words, with the remedy.
    pub warnings: Vec<String>,
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
        report
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

    pub(super) fn packaged(&self, window_bytes: u64, frames_dropped: u64) {
        let mut newest = self.newest.lock();
        newest.window_bytes = window_bytes;
        newest.frames_dropped = frames_dropped;
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
