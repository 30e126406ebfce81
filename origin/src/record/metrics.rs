//! What the recorder tells Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug)]
pub struct Metrics {
    pub active: IntGauge,
    pub unfinished: IntGauge,
    pub backlog_bytes: IntGauge,
    pub puts: IntCounterVec,
    pub stored_bytes: IntCounter,
    pub segments_missed: IntCounter,
    pub completed: IntCounterVec,
    pub shelf_reads: IntCounterVec,
    pub thumbnails: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            active: IntGauge::new("weir_origin_recordings_active", "Broadcasts being recorded now")?,
            unfinished: IntGauge::new(
                "weir_origin_recordings_unfinished",
                "Recordings of which something is not in the object store yet, those being recorded included",
            )?,
            backlog_bytes: IntGauge::new(
                "weir_origin_recording_backlog_bytes",
                "Media on the local disk that waits for the object store. Steadily rising: the store is too slow or down",
            )?,
            puts: IntCounterVec::new(
                Opts::new(
                    "weir_origin_recording_puts_total",
                    "Tries to store an object of a recording; each failed one is tried again",
                ),
                &["outcome"],
            )?,
            stored_bytes: IntCounter::new(
                "weir_origin_recording_stored_bytes_total",
                "Bytes of recordings that the object store has",
            )?,
            segments_missed: IntCounter::new(
                "weir_origin_recording_segments_missed_total",
                "Segments that left memory before they were recorded: the local disk is too slow. Should be zero",
            )?,
            completed: IntCounterVec::new(
                Opts::new("weir_origin_recordings_total", "Recordings that have come to an end"),
                &["outcome"],
            )?,
            shelf_reads: IntCounterVec::new(
                Opts::new(
                    "weir_origin_vod_reads_total",
                    "Objects of recordings wanted by edges and players, by where they came from",
                ),
                &["from"],
            )?,
            thumbnails: IntCounterVec::new(
                Opts::new(
                    "weir_origin_thumbnails_total",
                    "Thumbnails of recordings, by outcome. Anything but ok: that moment has none, and nothing else suffers",
                ),
                &["outcome"],
            )?,
        };
        for collector in [
            Box::new(metrics.active.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.unfinished.clone()),
            Box::new(metrics.backlog_bytes.clone()),
            Box::new(metrics.puts.clone()),
            Box::new(metrics.stored_bytes.clone()),
            Box::new(metrics.segments_missed.clone()),
            Box::new(metrics.completed.clone()),
            Box::new(metrics.shelf_reads.clone()),
            Box::new(metrics.thumbnails.clone()),
        ] {
            registry.register(collector)?;
        }
        Ok(metrics)
    }
}
