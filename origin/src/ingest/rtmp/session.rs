//! The dialogue of one RTMP connection: bytes in, replies and [`Step`]s out. No socket, no task; `now` is an argument.
//!
//! Order of commands: connect → (releaseStream, FCPublish) → createStream → publish → media → FCUnpublish, deleteStream.
//! After [`Step::Connect`] the caller must [`welcome`](Session::welcome), and after [`Step::Publish`]
//! [`accept`](Session::accept), before anything more is read.
//!
//! Before this: `rtmp/chunk.rs`. After this: `ingest/flv.rs` and `ingest/timeline.rs`, which this file calls.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

use super::{
    End,
    amf0::Value,
    chunk::{ChunkReader, Message, message_type},
    command::{self, Command},
    reply::{self, Replies},
};
use crate::{
    ingest::{
        Announced, Event,
        flv::{Demuxer, DropReason, Unit},
        timeline::{Repair, Timeline},
    },
    package::frame::{Frame, TrackKind},
};

/// User control event of a peer that asks whether we are there (section 7.1.7).
const PING_REQUEST: u16 = 6;
/// Smallest acknowledgement window obeyed, in bytes: a smaller one would have us answer every few bytes.
const WINDOW_MIN: u32 = 4096;

/// What the caller has to do next.
#[derive(Debug)]
pub enum Step {
    /// The encoder greets: application with its query, and tcUrl, as sent.
    Connect { app: String, tc_url: String },
    /// The encoder wants to publish under this name: key and query, as sent.
    Publish { name: String },
    /// For the pipeline. `repair`: its timestamp was put right.
    Event { event: Event, repair: Option<Repair> },
    /// An access unit was left out.
    Dropped { track: TrackKind, reason: DropReason },
}

/// One connection's dialogue.
pub struct Session {
    stage: Stage,
    reader: ChunkReader,
    replies: Replies,
    demuxer: Demuxer,
    timeline: Timeline,
    /// When the message that the demuxer works on was taken, in the encoder's milliseconds.
    timestamp: u32,
    announced: Option<Announced>,
    /// Bytes taken, and how many of them we have acknowledged.
    received: u64,
    acknowledged: u64,
    window: u32,
}

enum Stage {
    Handshake(Box<Handshake>),
    /// Waiting for `connect`.
    Shaken,
    /// Waiting for [`Session::welcome`].
    Knocking {
        /// The one it answers.
        transaction: f64,
        /// The encoder speaks Enhanced RTMP.
        enhanced: bool,
    },
    Connected,
    /// Waiting for [`Session::accept`].
    Asking,
    Publishing,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    pub fn new() -> Self {
        Self {
            stage: Stage::Handshake(Box::new(Handshake::new(PeerType::Server))),
            reader: ChunkReader::new(),
            replies: Replies::new(),
            demuxer: Demuxer::new(),
            timeline: Timeline::new(),
            timestamp: 0,
            announced: None,
            received: 0,
            acknowledged: 0,
            window: reply::WINDOW,
        }
    }

    /// Takes bytes off the front of `input` up to the next step. `None`: more input is needed. After an `Err` the
    /// dialogue is over; [`Session::farewell`] then says so to the encoder.
    pub fn next(&mut self, input: &mut BytesMut, now: Instant) -> Result<Option<Step>, End> {
        loop {
            if let Some(unit) = self.demuxer.poll() {
                return Ok(Some(self.place(unit, now)));
            }
            let before = input.len();
            let message = match &mut self.stage {
                Stage::Handshake(_) if input.is_empty() => return Ok(None),
                Stage::Handshake(_) => {
                    self.shake_hands(input)?;
                    continue;
                }
                Stage::Knocking { .. } | Stage::Asking => return Ok(None),
                _ => self.reader.next(input)?,
            };
            self.received += (before - input.len()) as u64;
            let Some(message) = message else { return Ok(None) };
            if let Some(step) = self.handle(message)? {
                return Ok(Some(step));
            }
        }
    }

    /// The `connect` is answered; the publish may follow.
    pub fn welcome(&mut self) {
        if let Stage::Knocking { transaction, enhanced } = self.stage {
            self.stage = Stage::Connected;
            self.replies.connected(transaction, enhanced);
        }
    }

    /// The door let the publish in.
    pub fn accept(&mut self) {
        self.stage = Stage::Publishing;
        self.reader.raise_limits();
        self.replies.publish_started();
    }

    /// Bytes for the peer, acknowledgement included when one is due.
    pub fn take_replies(&mut self) -> Result<Vec<u8>, End> {
        if self.received - self.acknowledged >= u64::from(self.window) {
            self.acknowledged = self.received;
            self.replies.acknowledge(self.received as u32);
        }
        match self.replies.failure() {
            Some(error) => Err(error.into()),
            None => Ok(self.replies.take()),
        }
    }

    /// Queues what the encoder shall know about the end.
    pub fn farewell(&mut self, end: &End) {
        match self.stage {
            Stage::Knocking { transaction, .. } => self.replies.not_connected(transaction, &end.told_at_connect()),
            Stage::Connected | Stage::Asking | Stage::Publishing => {
                if let Some((level, code)) = end.status() {
                    self.replies.on_status(level, code, &end.told());
                }
            }
            Stage::Handshake(_) | Stage::Shaken => {}
        }
    }

    /// Whether the peer's last bytes are part of something unfinished.
    pub fn is_inside_message(&self, input: &BytesMut) -> bool {
        !input.is_empty() || self.reader.is_inside_message()
    }

    fn shake_hands(&mut self, input: &mut BytesMut) -> Result<(), End> {
        let Stage::Handshake(handshake) = &mut self.stage else {
            return Ok(());
        };
        let bytes = input.split();
        match handshake.process_bytes(&bytes)? {
            HandshakeProcessResult::InProgress { response_bytes } => self.replies.raw(&response_bytes),
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                self.replies.raw(&response_bytes);
                input.extend_from_slice(&remaining_bytes);
                self.stage = Stage::Shaken;
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<Option<Step>, End> {
        let wrapped = matches!(message.type_id, message_type::COMMAND_AMF3 | message_type::DATA_AMF3);
        let publishing = matches!(self.stage, Stage::Publishing);
        match message.type_id {
            message_type::COMMAND_AMF0 | message_type::COMMAND_AMF3 => {
                let command = command::parse(&message.payload, wrapped)?;
                self.obey(command)
            }
            message_type::VIDEO if publishing => {
                self.timestamp = message.timestamp;
                self.demuxer.video(message.payload)?;
                Ok(None)
            }
            message_type::AUDIO if publishing => {
                self.timestamp = message.timestamp;
                self.demuxer.audio(message.payload)?;
                Ok(None)
            }
            message_type::DATA_AMF0 | message_type::DATA_AMF3 if publishing => {
                let announced = command::parse_metadata(&message.payload, wrapped)?;
                Ok(announced.and_then(|announced| self.announce(announced)))
            }
            message_type::WINDOW_ACK_SIZE => {
                if let Some(size) = message.payload.first_chunk() {
                    self.window = u32::from_be_bytes(*size).max(WINDOW_MIN);
                }
                Ok(None)
            }
            message_type::USER_CONTROL => {
                self.answer_ping(message.payload);
                Ok(None)
            }
            // Acknowledgements, shared objects, aggregates, media before the publish: nothing to do.
            _ => Ok(None),
        }
    }

    fn obey(&mut self, command: Command) -> Result<Option<Step>, End> {
        match (command, &self.stage) {
            (
                Command::Connect {
                    transaction,
                    app,
                    tc_url,
                    enhanced,
                },
                Stage::Shaken,
            ) => {
                self.stage = Stage::Knocking { transaction, enhanced };
                return Ok(Some(Step::Connect { app, tc_url }));
            }
            (Command::Connect { .. }, _) => return Err(End::OutOfOrder("connect came twice")),
            (Command::Other(_), _) => {}
            (_, Stage::Shaken) => return Err(End::OutOfOrder("connect has to come first")),
            (Command::ReleaseStream { transaction }, _) => self.replies.result(transaction, Value::Undefined),
            (Command::FcPublish { transaction, name }, _) => {
                self.replies.result(transaction, Value::Undefined);
                // Without the query: it may hold a password.
                self.replies.on_fc_publish(name.split('?').next().unwrap_or_default());
            }
            (Command::CreateStream { transaction }, _) => {
                self.replies.result(transaction, f64::from(reply::STREAM_ID).into());
            }
            (Command::Publish { name }, Stage::Connected) => {
                self.stage = Stage::Asking;
                return Ok(Some(Step::Publish { name }));
            }
            (Command::Publish { .. }, _) => return Err(End::OutOfOrder("publish came twice")),
            (Command::Unpublish, Stage::Publishing) => return Err(End::Unpublished),
            // Encoders tidy up a stream that they have not begun.
            (Command::Unpublish, _) => {}
            (Command::Play, _) => return Err(End::PlayRequested),
        }
        Ok(None)
    }

    fn announce(&mut self, announced: Announced) -> Option<Step> {
        if self.announced == Some(announced) {
            return None;
        }
        self.announced = Some(announced);
        Some(Step::Event {
            event: Event::Announced(announced),
            repair: None,
        })
    }

    fn place(&mut self, unit: Unit, now: Instant) -> Step {
        match unit {
            Unit::Dropped(track, reason) => Step::Dropped { track, reason },
            Unit::Config(track, config) => Step::Event {
                event: Event::Config(track, config),
                repair: None,
            },
            Unit::Frame(raw) => {
                let placed = self
                    .timeline
                    .place(raw.track, self.timestamp, raw.nanos, raw.composition_ms, now);
                Step::Event {
                    event: Event::Frame(Frame {
                        track: raw.track,
                        dts: placed.dts,
                        composition_offset: placed.composition_offset,
                        key: raw.key,
                        data: raw.data,
                    }),
                    repair: placed.repair,
                }
            }
        }
    }

    fn answer_ping(&mut self, mut payload: bytes::Bytes) {
        if payload.len() >= 6 && payload.get_u16() == PING_REQUEST {
            self.replies.pong(payload.get_u32().to_be_bytes());
        }
    }
}
