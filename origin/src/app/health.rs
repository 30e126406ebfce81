//! From what the media side measures of a push to what the API shows of it.
//!
//! Before this: `live/health.rs`. After this: `control/health.rs`.

use std::time::Duration;

use crate::{
    control::{
        health::{Health, LinkHealth, PublisherHealth, TrackHealth},
        lifecycle::Slot,
    },
    ingest::{self, Link},
    live::health::{HealthReport, PublisherReport, TrackReport},
};

/// `problem`: what else is wrong, with its recording for example.
pub(super) fn health(told: HealthReport, problem: Option<String>) -> Health {
    let publishers: Vec<_> = told.publishers.iter().map(publisher).collect();
    let shown: Vec<_> = publishers.iter().filter(|p| p.shown).flat_map(|p| &p.tracks).collect();
    let video = shown.iter().find(|track| track.width.is_some());
    Health {
        bitrate: (!shown.is_empty()).then(|| shown.iter().map(|track| track.bitrate).sum()),
        frame_rate: video.map(|track| track.frame_rate),
        key_frame_interval: video.and_then(|track| track.key_frame_interval),
        jitter_ms: shown.iter().map(|track| track.jitter_ms).max(),
        window_bytes: told.window_bytes,
        frames_dropped: told.frames_dropped,
        warnings: told.warnings.into_iter().chain(problem).collect(),
        publishers,
    }
}

fn publisher(report: &PublisherReport) -> PublisherHealth {
    let input = &report.input;
    PublisherHealth {
        slot: match report.slot {
            slot if slot == ingest::Slot::Backup.as_str() => Slot::Backup,
            _ => Slot::Primary,
        },
        variant: report.variant,
        shown: report.shown,
        sending: report.sends,
        connected_seconds: input.connected_seconds,
        gaps: input.gaps,
        frames_dropped: input.frames_dropped,
        frames_repaired: input.frames_repaired,
        tracks: input.tracks.iter().map(track).collect(),
        link: input.link.as_ref().map(link),
    }
}

fn track(report: &TrackReport) -> TrackHealth {
    TrackHealth {
        track: report.track.clone(),
        codec: report.codec.clone(),
        width: report.width,
        height: report.height,
        frame_rate: report.frame_rate,
        bitrate: report.bitrate,
        key_frame_interval: report.gop_seconds,
        jitter_ms: report.jitter_ms,
        frames: report.frames,
    }
}

fn link(link: &Link) -> LinkHealth {
    let millis = |time: Duration| rounded(time.as_secs_f64() * 1000.0);
    // Those that never came were sent, too.
    let sent = link.packets.saturating_add(link.packets_lost);
    LinkHealth {
        rtt_ms: millis(link.rtt),
        latency_ms: millis(link.latency),
        packets: link.packets,
        packets_missing: link.packets_missing,
        packets_lost: link.packets_lost,
        packets_retransmitted: link.packets_retransmitted,
        loss_percent: match sent {
            0 => 0.0,
            sent => rounded(link.packets_missing as f64 / sent as f64 * 100.0),
        },
    }
}

/// To a hundredth.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::health::InputReport;

    fn report(slot: &'static str, shown: bool, bitrate: u64, jitter_ms: u64) -> PublisherReport {
        let track = |name: &str, width: Option<u16>| TrackReport {
            track: name.to_owned(),
            codec: "avc1.64001f".to_owned(),
            width,
            height: width.map(|_| 720),
            frame_rate: 29.97,
            bitrate,
            gop_seconds: width.map(|_| 2.0),
            jitter_ms,
            frames: 300,
        };
        PublisherReport {
            variant: 1,
            slot,
            shown,
            sends: true,
            input: InputReport {
                tracks: vec![track("audio", None), track("video", Some(1280))],
                connected_seconds: 10,
                link: Some(Link {
                    rtt: Duration::from_micros(20_125),
                    latency: Duration::from_millis(120),
                    buffer: Duration::ZERO,
                    packets: 975,
                    packets_missing: 50,
                    packets_lost: 25,
                    packets_retransmitted: 30,
                    packets_undecrypted: 0,
                    acknowledgements_unanswered: 0,
                }),
                ..InputReport::default()
            },
        }
    }

    #[test]
    fn the_whole_is_what_viewers_see_and_the_parts_are_all_there_is() {
        let told = HealthReport {
            publishers: vec![
                report("primary", false, 9_000_000, 900),
                report("backup", true, 1_500_000, 4),
            ],
            warnings: vec!["key frames are rare".to_owned()],
            ..HealthReport::default()
        };
        let health = health(told, Some("the store is full".to_owned()));
        assert_eq!(
            (
                health.bitrate,
                health.frame_rate,
                health.key_frame_interval,
                health.jitter_ms
            ),
            (Some(3_000_000), Some(29.97), Some(2.0), Some(4))
        );
        let slots: Vec<_> = health
            .publishers
            .iter()
            .map(|p| (p.slot, p.shown, p.tracks.len()))
            .collect();
        assert_eq!(slots, [(Slot::Primary, false, 2), (Slot::Backup, true, 2)]);
        assert_eq!(health.warnings, ["key frames are rare", "the store is full"]);
    }

    #[test]
    fn loss_is_of_what_was_sent_and_not_of_what_came() {
        let link = publisher(&report("primary", true, 1, 1)).link.unwrap();
        assert_eq!((link.rtt_ms, link.latency_ms, link.loss_percent), (20.13, 120.0, 5.0));
    }

    #[test]
    fn nobody_to_be_seen_has_no_figures() {
        let health = health(HealthReport::default(), None);
        assert_eq!(
            (health.bitrate, health.jitter_ms, health.publishers.len()),
            (None, None, 0)
        );
    }
}
