//! What we say to an encoder: commands and control messages as chunks. Pure.
//!
//! Before this: `rtmp/session.rs`. After this: the socket, in `rtmp/server.rs`.

use rml_rtmp::{
    chunk_io::{ChunkSerializationError, ChunkSerializer},
    messages::MessagePayload,
    time::RtmpTimestamp,
};

use super::{
    amf0::{self, Value},
    chunk::message_type,
    enhanced,
};

/// The only message stream we hand out: one connection, one publish.
pub(super) const STREAM_ID: u32 = 1;
/// Acknowledgement window that we ask of the peer, in bytes.
pub(super) const WINDOW: u32 = 2_500_000;
/// Size of the chunks we send, in bytes: every reply fits into one.
const CHUNK_SIZE: u32 = 4096;

const DYNAMIC_LIMIT: u8 = 2;
const STREAM_BEGIN: u16 = 0;
const PING_RESPONSE: u16 = 7;

/// Collects replies until the socket takes them.
pub(super) struct Replies {
    serializer: ChunkSerializer,
    bytes: Vec<u8>,
    failed: Option<ChunkSerializationError>,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self {
            serializer: ChunkSerializer::new(),
            bytes: Vec::new(),
            failed: None,
        }
    }

    /// Everything queued since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// A reply that could not be written as chunks, if any; none of ours is that long.
    pub(super) fn failure(&mut self) -> Option<ChunkSerializationError> {
        self.failed.take()
    }

    /// Bytes outside the chunk stream: the handshake.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Answer to `connect` (section 7.2.1.1). `enhanced`: with what we can do of Enhanced RTMP.
    pub(super) fn connected(&mut self, transaction: f64, enhanced: bool) {
        self.message(message_type::WINDOW_ACK_SIZE, 0, WINDOW.to_be_bytes().to_vec());
        let mut bandwidth = WINDOW.to_be_bytes().to_vec();
        bandwidth.push(DYNAMIC_LIMIT);
        self.message(message_type::SET_PEER_BANDWIDTH, 0, bandwidth);
        match self.serializer.set_max_chunk_size(CHUNK_SIZE, RtmpTimestamp::new(0)) {
            Ok(packet) => self.bytes.extend(packet.bytes),
            Err(error) => self.failed = Some(error),
        }
        let mut server = object(&[("fmsVer", "FMS/3,0,1,123".into()), ("capabilities", 31.0.into())]);
        if enhanced && let Value::Object(properties) = &mut server {
            properties.extend(enhanced::capabilities());
        }
        let mut info = status("status", "NetConnection.Connect.Success", "Connection succeeded.");
        if let Value::Object(properties) = &mut info {
            properties.push(("objectEncoding".into(), 0.0.into()));
        }
        self.command(0, &["_result".into(), transaction.into(), server, info]);
    }

    /// Refusal of `connect`.
    pub(super) fn not_connected(&mut self, transaction: f64, why: &str) {
        let info = status("error", "NetConnection.Connect.Rejected", why);
        self.command(0, &["_error".into(), transaction.into(), Value::Null, info]);
    }

    /// Plain success of a command.
    pub(super) fn result(&mut self, transaction: f64, value: Value) {
        self.command(0, &["_result".into(), transaction.into(), Value::Null, value]);
    }

    /// Answer to `FCPublish`.
    pub(super) fn on_fc_publish(&mut self, name: &str) {
        let info = status("status", "NetStream.Publish.Start", name);
        self.command(0, &["onFCPublish".into(), 0.0.into(), Value::Null, info]);
    }

    /// The publish is accepted.
    pub(super) fn publish_started(&mut self) {
        let mut event = STREAM_BEGIN.to_be_bytes().to_vec();
        event.extend(STREAM_ID.to_be_bytes());
        self.message(message_type::USER_CONTROL, 0, event);
        self.on_status("status", "NetStream.Publish.Start", "Publishing.");
    }

    pub(super) fn on_status(&mut self, level: &str, code: &str, description: &str) {
        let info = status(level, code, description);
        self.command(STREAM_ID, &["onStatus".into(), 0.0.into(), Value::Null, info]);
    }

    /// `received`: bytes so far, wrapping at 2^32 (section 5.4.3).
    pub(super) fn acknowledge(&mut self, received: u32) {
        self.message(message_type::ACKNOWLEDGEMENT, 0, received.to_be_bytes().to_vec());
    }

    pub(super) fn pong(&mut self, timestamp: [u8; 4]) {
        let mut event = PING_RESPONSE.to_be_bytes().to_vec();
        event.extend(timestamp);
        self.message(message_type::USER_CONTROL, 0, event);
    }

    fn command(&mut self, stream_id: u32, values: &[Value]) {
        self.message(message_type::COMMAND_AMF0, stream_id, amf0::encode(values));
    }

    fn message(&mut self, type_id: u8, stream_id: u32, data: Vec<u8>) {
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(0),
            type_id,
            message_stream_id: stream_id,
            data: data.into(),
        };
        // Full headers throughout: some encoders trip over compressed ones at the start.
        match self.serializer.serialize(&payload, true, false) {
            Ok(packet) => self.bytes.extend(packet.bytes),
            Err(error) => self.failed = Some(error),
        }
    }
}

fn status(level: &str, code: &str, description: &str) -> Value {
    object(&[
        ("level", level.into()),
        ("code", code.into()),
        ("description", description.into()),
    ])
}

fn object(properties: &[(&str, Value)]) -> Value {
    Value::Object(properties.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
}
