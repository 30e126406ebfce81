//! One elementary stream of a program: its PES packets become access units with times, and damage is dealt with. Pure.
//!
//! Before this: `ts/pes.rs`. Beside it: `ts/video.rs`, `ts/audio.rs`. After this: `ingest/timeline.rs`.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use weir_shared::media::time::MediaTime;

use super::{
    Damaged, Step, TsError,
    audio::{Adts, Opus, Sound},
    clock::Times,
    packet::{Packet, Pid},
    pes::{Assembler, Pes},
    table::Codec,
    video::{Reader, Syntax},
};
use crate::{
    codec::CodecConfig,
    ingest::{
        Event,
        flv::{DropReason, FRAMES_BEFORE_CONFIG_MAX},
        timeline::Timeline,
    },
    package::frame::{Frame, TrackId},
};

const NANOS_PER_MS: i64 = 1_000_000;
/// Distance of access units assumed until two times were seen.
const STEP_DEFAULT: i64 = 33_333_333;
/// Longer distances say nothing about the next one.
const STEP_MAX: i64 = 1_000_000_000;

/// A stream's state.
#[derive(Debug)]
pub(super) struct Track {
    pub pid: Pid,
    pub id: TrackId,
    pub codec: Codec,
    assembler: Assembler,
    reader: Syntaxes,
    /// The last access unit's decode time, and the distance to it, in nanoseconds.
    last: Option<i64>,
    step: i64,
    /// A decoder configuration was found.
    configured: bool,
    frames_before_config: u32,
}

#[derive(Debug)]
enum Syntaxes {
    Video {
        reader: Reader,
        damaged: Damaged,
        /// An access unit was lost that others may refer to.
        waits_for_key: bool,
    },
    Adts(Adts),
    Opus(Opus),
    /// Never opened.
    Nothing,
}

/// What came of a PES packet, before it has its place on the timeline.
#[derive(Debug)]
pub(super) enum Unit {
    Config(CodecConfig),
    Frame { times: Times, key: bool, data: Bytes },
    Dropped(DropReason),
}

impl Track {
    pub(super) fn new(pid: Pid, id: TrackId, codec: Codec, damaged: Damaged) -> Self {
        let video = |syntax| Syntaxes::Video {
            reader: Reader::new(syntax),
            damaged,
            waits_for_key: false,
        };
        Self {
            pid,
            id,
            codec,
            assembler: Assembler::default(),
            reader: match codec {
                Codec::Avc => video(Syntax::Avc),
                Codec::Hevc => video(Syntax::Hevc),
                Codec::Aac => Syntaxes::Adts(Adts::default()),
                Codec::Opus(channels) => Syntaxes::Opus(Opus::new(channels)),
                Codec::Other(..) => Syntaxes::Nothing,
            },
            last: None,
            step: STEP_DEFAULT,
            configured: false,
            frames_before_config: 0,
        }
    }

    pub(super) fn push(&mut self, packet: &Packet<'_>) -> [Option<Pes>; 2] {
        self.assembler.push(packet)
    }

    pub(super) fn gap(&mut self) {
        if matches!(self.reader, Syntaxes::Video { .. }) {
            self.assembler.lost();
        }
    }

    pub(super) fn finish(&mut self) -> Option<Pes> {
        self.assembler.finish()
    }

    /// The access units of a PES packet, in order.
    pub(super) fn read(&mut self, pes: Pes, times: Option<Times>) -> Result<Vec<Unit>, TsError> {
        match &mut self.reader {
            Syntaxes::Video { .. } => self.picture(&pes, times),
            Syntaxes::Adts(reader) => {
                if pes.damaged {
                    reader.lost();
                    return Ok(vec![Unit::Dropped(DropReason::Damaged)]);
                }
                let sounds = reader.read(&pes.data)?;
                Ok(self.sounds(sounds, times))
            }
            Syntaxes::Opus(reader) => {
                if pes.damaged {
                    return Ok(vec![Unit::Dropped(DropReason::Damaged)]);
                }
                let sounds = reader.read(&pes.data)?;
                Ok(self.sounds(sounds, times))
            }
            Syntaxes::Nothing => Ok(Vec::new()),
        }
    }

    fn picture(&mut self, pes: &Pes, times: Option<Times>) -> Result<Vec<Unit>, TsError> {
        let Syntaxes::Video {
            reader,
            damaged,
            waits_for_key,
        } = &mut self.reader
        else {
            return Ok(Vec::new());
        };
        if pes.damaged && *damaged == Damaged::DropToKey {
            *waits_for_key = true;
            return Ok(vec![Unit::Dropped(DropReason::Damaged)]);
        }
        let unit = match reader.read(&pes.data) {
            Ok(unit) => unit,
            // The parameter sets may be what was damaged.
            Err(_) if pes.damaged => return Ok(vec![Unit::Dropped(DropReason::Damaged)]),
            Err(error) => return Err(error),
        };
        let mut units = Vec::new();
        if pes.damaged {
            units.push(Unit::Dropped(DropReason::Damaged));
        }
        if let Some(config) = unit.config {
            self.configured = true;
            units.push(Unit::Config(config));
        }
        if unit.data.is_empty() {
            return Ok(units);
        }
        *waits_for_key &= !unit.key;
        let waits = *waits_for_key;
        let times = self.times(times);
        units.push(if !self.configured {
            self.frames_before_config += 1;
            if self.frames_before_config > FRAMES_BEFORE_CONFIG_MAX {
                return Err(TsError::NoParameterSets);
            }
            Unit::Dropped(DropReason::BeforeConfig)
        } else if waits {
            Unit::Dropped(DropReason::AfterDamage)
        } else {
            Unit::Frame {
                times,
                key: unit.key,
                data: unit.data,
            }
        });
        Ok(units)
    }

    /// Frames of sound follow one another; the packet's time is that of the first that begins in it.
    fn sounds(&mut self, sounds: Vec<Sound>, mut times: Option<Times>) -> Vec<Unit> {
        let mut units = Vec::new();
        for sound in sounds {
            let told = if sound.carried { None } else { times.take() };
            if let Some(config) = sound.config {
                units.push(Unit::Config(config));
            }
            let times = self.times(told.map(|told| Times { dts: told.pts, ..told }));
            self.step = sound.nanos;
            units.push(Unit::Frame {
                times,
                key: true,
                data: sound.data,
            });
        }
        units
    }

    /// The times that were told, or those that follow from the one before.
    fn times(&mut self, told: Option<Times>) -> Times {
        let follows = self.last.map_or(0, |last| last.saturating_add(self.step));
        let times = told.unwrap_or(Times {
            dts: follows,
            pts: follows,
        });
        if let Some(last) = self.last {
            let step = times.dts.saturating_sub(last);
            if (1..STEP_MAX).contains(&step) {
                self.step = step;
            }
        }
        self.last = Some(times.dts);
        times
    }
}

impl Unit {
    /// Puts it on the publish's timeline.
    pub(super) fn place(self, track: TrackId, timeline: &mut Timeline, now: Instant) -> Step {
        match self {
            Self::Config(config) => Step::Event {
                event: Event::Config(track, Arc::new(config)),
                repair: None,
            },
            Self::Dropped(reason) => Step::Dropped {
                track: track.kind,
                reason,
            },
            Self::Frame { times, key, data } => {
                // The timeline counts milliseconds modulo 2^32, and passes on what is below one.
                let (ms, nanos) = (times.dts.div_euclid(NANOS_PER_MS), times.dts.rem_euclid(NANOS_PER_MS));
                let composition = times.pts.saturating_sub(times.dts);
                let composition_ms = i32::try_from(composition.div_euclid(NANOS_PER_MS)).unwrap_or(0);
                let below = MediaTime::from_nanos(composition.rem_euclid(NANOS_PER_MS));
                let placed = timeline.place(track, ms as u32, nanos as u32, composition_ms, now);
                Step::Event {
                    event: Event::Frame(Frame {
                        track,
                        dts: placed.dts,
                        composition_offset: placed.composition_offset + below,
                        key,
                        data,
                    }),
                    repair: placed.repair,
                }
            }
        }
    }
}
