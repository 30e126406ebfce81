//! Stories of the core, on a simulated clock.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use weir_shared::media::time::MediaTime;

use super::{Action, Arrival, Resilience};
use crate::{
    codec::{
        CodecConfig,
        aac::AacConfig,
        avc::{self, AvcConfig},
    },
    package::{
        frame::{Frame, TrackId, TrackKind},
        segmenter::KeyRole,
        slate::Slate,
    },
};

const MAIN: u8 = 1;
const FPS: u64 = 30;

fn configs() -> BTreeMap<TrackId, Arc<CodecConfig>> {
    let avc = AvcConfig::parse(Bytes::from_static(avc::tests::X264_720P30)).unwrap();
    let aac = AacConfig::parse(Bytes::from_static(&[0x11, 0x90])).unwrap();
    [
        (TrackId::VIDEO, Arc::new(CodecConfig::Avc(avc))),
        (TrackId::AUDIO, Arc::new(CodecConfig::Aac(aac))),
    ]
    .into()
}

/// An encoder: frame `n` of video is stamped `n / 30 s`, a key frame each second.
fn video(n: u64, zero_ms: i64) -> Frame {
    Frame {
        track: TrackId::VIDEO,
        dts: MediaTime::from_nanos((n * 1_000_000_000 / FPS) as i64) + MediaTime::from_millis(zero_ms),
        composition_offset: MediaTime::ZERO,
        key: n.is_multiple_of(FPS),
        data: Bytes::from(vec![n as u8; 50]),
    }
}

fn audio(n: u64, zero_ms: i64) -> Frame {
    Frame {
        track: TrackId::AUDIO,
        dts: MediaTime::from_nanos((n * 1_024_000_000_000 / 48_000) as i64) + MediaTime::from_millis(zero_ms),
        composition_offset: MediaTime::ZERO,
        key: true,
        data: Bytes::from(vec![n as u8; 9]),
    }
}

/// A stage on which frames come and are shown.
struct Stage {
    core: Resilience,
    start: Instant,
    now_ms: u64,
    /// (track, dts in ms since the stage's start, filler, key, when published in ms)
    shown: Vec<Shown>,
    /// Where the newest segment began.
    segment: Option<MediaTime>,
    /// Every decoder configuration of the picture, and when it came.
    configured: Vec<(u64, Arc<CodecConfig>)>,
    turns: Vec<Turn>,
    /// Decoder configurations of sound that were told with its frames.
    sounds: usize,
}

/// What was told of a picture before it came.
#[derive(Debug)]
struct Turn {
    at: MediaTime,
    tracks: Vec<TrackId>,
    /// Pictures, and frames of sound, shown before.
    shown: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    kind: TrackKind,
    dts: MediaTime,
    filler: bool,
    key: bool,
    first_byte: u8,
    at_ms: u64,
}

impl Stage {
    fn new(cushion_ms: u64) -> Self {
        let start = Instant::now();
        Self {
            core: Resilience::new(Duration::from_millis(cushion_ms), start),
            start,
            now_ms: 0,
            shown: Vec::new(),
            segment: None,
            configured: Vec::new(),
            turns: Vec::new(),
            sounds: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn switch(&mut self, source: u64) {
        self.switch_with(source, &configs());
    }

    fn switch_with(&mut self, source: u64, configs: &BTreeMap<TrackId, Arc<CodecConfig>>) {
        self.core.switch(MAIN, source, configs, []);
    }

    fn push(&mut self, source: u64, frame: Frame) {
        let starts = frame.track.kind == TrackKind::Video && frame.key;
        let at = self.now();
        self.core.push(MAIN, source, Arrival { frame, starts, at });
    }

    fn poll(&mut self) {
        let now = self.now();
        loop {
            let began = self.segment;
            let role = |_, at: MediaTime| match began {
                None => KeyRole::Begins,
                Some(began) if at >= began + MediaTime::from_millis(1990) => KeyRole::Cuts,
                Some(_) => KeyRole::Inside,
            };
            let Some(actions) = self.core.poll(now, role) else {
                break;
            };
            for action in actions {
                let (frame, filler) = match action {
                    Action::Frame { frame, filler, .. } => (frame, filler),
                    Action::Turn { at, configs, .. } => {
                        let pictures = configs.iter().filter(|(id, _)| id.kind == TrackKind::Video);
                        self.configured
                            .extend(pictures.map(|(_, config)| (self.now_ms, config.clone())));
                        self.turns.push(Turn {
                            at,
                            tracks: configs.iter().map(|(id, _)| *id).collect(),
                            shown: [TrackKind::Video, TrackKind::Audio].map(|kind| self.of(kind).len()),
                        });
                        continue;
                    }
                    Action::Run { .. } => continue,
                    Action::Configure { id, config, .. } => {
                        match id.kind {
                            TrackKind::Video => self.configured.push((self.now_ms, config)),
                            TrackKind::Audio => self.sounds += 1,
                        }
                        continue;
                    }
                };
                if frame.track.kind == TrackKind::Video && frame.key && role(MAIN, frame.dts) != KeyRole::Inside {
                    self.segment = Some(frame.dts);
                }
                self.shown.push(Shown {
                    kind: frame.track.kind,
                    dts: frame.dts,
                    filler: filler.is_some(),
                    key: frame.key,
                    first_byte: frame.data.first().copied().unwrap_or(0),
                    at_ms: self.now_ms,
                });
            }
        }
    }

    /// Lets an encoder send what it made up to `to_ms`, each frame `late(ms made)` after it was made. It starts at `from_ms`
    /// and stamps from `zero_ms`.
    fn play(&mut self, source: u64, encoder: Encoder, until_ms: u64, arrives: impl Fn(u64) -> u64) {
        let mut sent: Vec<(u64, Frame)> = Vec::new();
        let made = |dts: MediaTime| encoder.from_ms + (dts.as_millis() - encoder.zero_ms) as u64;
        for n in 0.. {
            let frame = video(n, encoder.zero_ms);
            if made(frame.dts) >= until_ms {
                break;
            }
            sent.push((arrives(made(frame.dts)), frame));
        }
        for n in 0.. {
            let frame = audio(n, encoder.zero_ms);
            if made(frame.dts) >= until_ms {
                break;
            }
            sent.push((arrives(made(frame.dts)), frame));
        }
        sent.sort_by_key(|(at, frame)| (*at, frame.dts));
        for (at, frame) in sent {
            if at < self.now_ms || at >= until_ms {
                continue;
            }
            self.wait(at);
            self.push(source, frame);
        }
        self.wait(until_ms);
    }

    fn wait(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            self.now_ms += 10.min(until_ms - self.now_ms);
            self.poll();
        }
    }

    fn of(&self, kind: TrackKind) -> Vec<Shown> {
        self.shown.iter().copied().filter(|shown| shown.kind == kind).collect()
    }

    /// What a viewer relies on.
    fn check(&self) {
        for (kind, step) in [(TrackKind::Video, 33.33), (TrackKind::Audio, 21.33)] {
            let shown = self.of(kind);
            for pair in shown.windows(2) {
                let distance = (pair[1].dts - pair[0].dts).as_nanos() as f64 / 1e6;
                assert!(
                    distance > step * 0.45 && distance < step * 1.6,
                    "{kind:?} {distance} ms from {:?} to {:?}",
                    pair[0],
                    pair[1]
                );
                assert!(
                    pair[1].at_ms - pair[0].at_ms <= 150,
                    "{kind:?}: {:?} then {:?}",
                    pair[0],
                    pair[1]
                );
                let goes_on = pair[1].key || !pair[0].filler || pair[1].filler;
                assert!(
                    goes_on,
                    "{kind:?}: decoding can't go on: {:?} then {:?}",
                    pair[0], pair[1]
                );
            }
        }
    }

    /// Time filled, in ms.
    fn filled(&self, kind: TrackKind) -> f64 {
        let step = if kind == TrackKind::Video { 33.33 } else { 21.33 };
        self.of(kind).iter().filter(|shown| shown.filler).count() as f64 * step
    }

    /// How far behind the encoder's clock the newest real frame of video is published, in ms.
    fn latency(&self, encoder: Encoder) -> i64 {
        let newest = self
            .of(TrackKind::Video)
            .into_iter()
            .rev()
            .find(|shown| !shown.filler)
            .unwrap();
        // Its number is in its bytes; frames since the encoder's start wrap at 256.
        let made = |n: u64| encoder.from_ms as i64 + (n * 1000 / FPS) as i64;
        (0..100_000)
            .filter(|n| *n as u8 == newest.first_byte)
            .map(|n| newest.at_ms as i64 - made(n))
            .filter(|late| *late >= -50)
            .min()
            .unwrap()
    }
}

#[derive(Debug, Clone, Copy)]
struct Encoder {
    from_ms: u64,
    zero_ms: i64,
}

const ENCODER: Encoder = Encoder {
    from_ms: 0,
    zero_ms: 777,
};

fn held(from: u64, to: u64) -> impl Fn(u64) -> u64 {
    move |made| if (from..to).contains(&made) { to } else { made }
}

#[test]
fn undisturbed_input_is_shown_whole_a_cushion_later() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    stage.play(1, ENCODER, 10_000, |made| made);
    stage.check();
    assert_eq!(stage.filled(TrackKind::Video), 0.0);
    assert_eq!(stage.filled(TrackKind::Audio), 0.0);
    assert_eq!(stage.of(TrackKind::Video).len(), 271);
    assert!(
        (990..=1030).contains(&stage.latency(ENCODER)),
        "{}",
        stage.latency(ENCODER)
    );
}

#[test]
fn a_hiccup_shorter_than_the_cushion_is_not_seen() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    stage.play(1, ENCODER, 10_000, held(4000, 4900));
    stage.check();
    assert_eq!(stage.filled(TrackKind::Video) + stage.filled(TrackKind::Audio), 0.0);
}

#[test]
fn a_longer_one_is_filled_and_latency_does_not_grow() {
    for stall in [1500, 2000, 4000, 8000] {
        let mut stage = Stage::new(1000);
        stage.switch(1);
        stage.play(1, ENCODER, 4000 + stall + 6000, held(4000, 4000 + stall));
        stage.check();
        let video = stage.filled(TrackKind::Video);
        // What the cushion does not hold, and up to a group of pictures.
        let missing = stall as f64 - 1000.0;
        assert!((missing - 100.0..missing + 1100.0).contains(&video), "{stall}: {video}");
        let latency = stage.latency(ENCODER);
        assert!((990..=1030).contains(&latency), "{stall}: {latency}");
        assert!(stage.core.counts().late[0] > 0);
    }
}

#[test]
fn an_encoder_that_stood_still_with_its_clock_is_followed_at_the_cushions_distance() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    // Its clock stands from 4 s to 6 s: everything later is stamped two seconds too early, for good.
    let stood = |made: u64| if made >= 4000 { made + 2000 } else { made };
    stage.play(1, ENCODER, 16_000, stood);
    stage.check();
    let last = stage.of(TrackKind::Video).pop().unwrap();
    assert!(!last.filler, "it is shown again");
    let cushion = stage.core.cushion(MAIN, stage.now()).unwrap();
    assert!((900..=1050).contains(&cushion.as_millis()), "{cushion:?}");
}

#[test]
fn an_encoder_that_never_settles_is_shown_all_the_same() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    // From 4 s on it is three seconds late, and what it sends comes in heaps.
    let heaped = |made: u64| match made {
        ..4000 => made,
        late => 3000 + (late / 700 + 1) * 700,
    };
    stage.play(1, ENCODER, 30_000, heaped);
    stage.check();
    let last = stage.of(TrackKind::Video).pop().unwrap();
    assert!(!last.filler, "it is shown again");
    let filled = stage.filled(TrackKind::Video);
    assert!((2500.0..10_000.0).contains(&filled), "{filled}");
}

#[test]
fn a_new_session_of_a_restarted_encoder_goes_on_whatever_its_clock_says() {
    for (zero_ms, away) in [(0, 1000), (4_000_000_000, 5000), (90_000, 9000)] {
        let mut stage = Stage::new(1000);
        stage.switch(1);
        stage.play(1, ENCODER, 6000, |made| made);
        stage.core.forget(1);
        stage.wait(6000 + away);
        let second = Encoder {
            from_ms: 6000 + away,
            zero_ms,
        };
        stage.switch(2);
        stage.play(2, second, 6000 + away + 5000, |made| made);
        stage.check();
        let latency = stage.latency(second);
        assert!((990..=1030).contains(&latency), "{latency}");
        let filled = stage.filled(TrackKind::Video);
        assert!((filled - away as f64).abs() < 100.0, "{filled} of {away}");
    }
}

#[test]
fn a_backup_with_the_same_clock_takes_over_without_a_filled_frame() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    let mut backlog = Vec::new();
    for n in 0..200 {
        for source in [1, 2] {
            stage.push(source, video(n, 777));
        }
        if n >= 150 {
            let frame = video(n, 777);
            let starts = frame.key;
            backlog.push(Arrival {
                frame,
                starts,
                at: stage.now(),
            });
        }
        for m in (n * 1000 / FPS * 48 / 1024)..((n + 1) * 1000 / FPS * 48 / 1024) {
            for source in [1, 2] {
                stage.push(source, audio(m, 777));
            }
            let frame = audio(m, 777);
            backlog.push(Arrival {
                frame,
                starts: false,
                at: stage.now(),
            });
        }
        stage.wait((n + 1) * 1000 / FPS);
    }
    stage.core.forget(1);
    stage.wait(stage.now_ms + 100);
    stage.core.switch(MAIN, 2, &configs(), backlog);
    for n in 200..300 {
        let at = (n * 1000 / FPS).max(stage.now_ms);
        stage.wait(at);
        stage.push(2, video(n, 777));
        for m in (n * 1000 / FPS * 48 / 1024)..((n + 1) * 1000 / FPS * 48 / 1024) {
            stage.push(2, audio(m, 777));
        }
    }
    stage.check();
    assert_eq!(stage.filled(TrackKind::Video), 0.0);
}

#[test]
fn without_a_cushion_it_still_fills() {
    let mut stage = Stage::new(0);
    stage.switch(1);
    stage.play(1, ENCODER, 12_000, held(4000, 6000));
    stage.check();
    assert!(stage.filled(TrackKind::Video) > 1800.0);
    assert!(stage.latency(ENCODER) < 40);
}

#[test]
fn a_source_that_becomes_a_little_earlier_is_brought_forward() {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    // It comes 1.3 s late for good, and after a while 1.15 s.
    let late = |made: u64| match made {
        0..5000 => made,
        5000..7700 => 9000,
        7700..12_700 => made + 1300,
        _ => (made + 1150).max(14_000),
    };
    stage.play(1, ENCODER, 24_000, late);
    stage.check();
    let latency = stage.latency(ENCODER);
    assert!((2140..=2220).contains(&latency), "{latency}");
}

#[test]
fn a_long_gap_shows_the_operators_picture_until_the_broadcast_is_back() {
    let broadcast = configs()[&TrackId::VIDEO].clone();
    // Of another level.
    let mut record = avc::tests::X264_720P30.to_vec();
    (record[3], record[11]) = (0x20, 0x20);
    let config = Arc::new(CodecConfig::Avc(AvcConfig::parse(record.into()).unwrap()));
    let slate = Slate {
        config: config.clone(),
        key: Bytes::from_static(b"\0\0\0\x08\x65\x88\x84\0\x33\xff\xfe\xf6"),
    };
    for (away, is_shown) in [(2000, false), (12_000, true)] {
        let mut stage = Stage::new(1000);
        stage.switch(1);
        stage.core.set_slate(MAIN, &slate, Duration::from_secs(4));
        stage.play(1, ENCODER, 6000, |made| made);
        stage.core.forget(1);
        stage.wait(6000 + away);
        let second = Encoder {
            from_ms: 6000 + away,
            zero_ms: 0,
        };
        stage.switch(2);
        stage.play(2, second, 6000 + away + 5000, |made| made);
        stage.check();
        let seen: Vec<_> = stage.configured.iter().map(|(_, config)| config.clone()).collect();
        if !is_shown {
            assert_eq!(seen, std::slice::from_ref(&broadcast));
            continue;
        }
        assert_eq!(seen, [broadcast.clone(), config.clone(), broadcast.clone()]);
        // The gap is seen from 7 s on; the slate comes with the first segment after four more.
        let (began, ended) = (stage.configured[1].0, stage.configured[2].0);
        assert!((11_000..=13_050).contains(&began), "{began}");
        assert!((18_900..=19_100).contains(&ended), "{ended}");
        let first = stage
            .of(TrackKind::Video)
            .into_iter()
            .find(|shown| shown.at_ms >= began)
            .unwrap();
        assert!(first.key && first.filler, "decoding begins with it: {first:?}");
    }
}

mod turns;
