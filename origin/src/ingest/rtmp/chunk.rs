//! RTMP chunk stream reader (RTMP 1.0 section 5.3): bytes in, whole messages out. Pure.
//!
//! Chunk streams may interleave; each keeps its own unfinished message. Every memory that a peer can make us use has a
//! bound below. Set Chunk Size and Abort are obeyed here and never come out; acknowledgements are the session's.
//!
//! Before this: `rtmp/server.rs` (socket). After this: `rtmp/session.rs`.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

/// Unfinished messages at a time, over all chunk streams. Encoders use two or three.
pub const PARTIALS_MAX: usize = 8;
/// Sum of the announced lengths of all unfinished messages, in bytes.
pub const PARTIAL_BYTES_MAX: usize = 8 << 20;
/// Chunk streams whose last header is remembered.
pub const CHUNK_STREAMS_MAX: usize = 64;
/// Longest audio or video message, in bytes: a 4K key frame is below 2 MiB.
pub const MEDIA_MESSAGE_MAX: usize = 4 << 20;
/// Longest message of any other type, in bytes.
pub const CONTROL_MESSAGE_MAX: usize = 64 << 10;
/// Largest chunk size a peer may choose, in bytes.
pub const CHUNK_SIZE_MAX: u32 = 1 << 20;
/// Bytes a peer may send before it publishes; a connect dialogue has about 2 kB.
pub const BYTES_BEFORE_PUBLISH_MAX: u64 = 256 << 10;

/// Chunk size until told otherwise (section 5.4.1).
const CHUNK_SIZE_DEFAULT: u32 = 128;
/// A 24-bit time of this value says that a 32-bit one follows (section 5.3.1.3).
const TIME_IS_EXTENDED: u32 = 0x00ff_ffff;

/// Message types that this layer knows (sections 5.4, 7.1).
pub mod message_type {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const ACKNOWLEDGEMENT: u8 = 3;
    pub const USER_CONTROL: u8 = 4;
    pub const WINDOW_ACK_SIZE: u8 = 5;
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const DATA_AMF3: u8 = 15;
    pub const COMMAND_AMF3: u8 = 17;
    pub const DATA_AMF0: u8 = 18;
    pub const COMMAND_AMF0: u8 = 20;
}

/// One RTMP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Absolute, in milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    pub type_id: u8,
    /// Message stream: 0 for the connection, otherwise what createStream returned.
    pub stream_id: u32,
    pub payload: Bytes,
}

/// A breach of the chunk protocol or of our limits. The connection cannot go on after any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("message of {length} bytes (type {type_id}), at most {limit} are accepted")]
    MessageTooLong { type_id: u8, length: usize, limit: usize },
    #[error("chunk size {0}, accepted are 1 to {CHUNK_SIZE_MAX}")]
    ChunkSize(u32),
    #[error("control message of type {0} is too short")]
    ShortControlMessage(u8),
    #[error("more than {CHUNK_STREAMS_MAX} chunk streams")]
    TooManyChunkStreams,
    #[error("more than {PARTIALS_MAX} unfinished messages, or more than {PARTIAL_BYTES_MAX} bytes of them")]
    TooManyPartials,
    #[error("chunk stream {0} begins with a compressed header")]
    NoPreviousHeader(u32),
    #[error("chunk stream {0} begins a message inside a message")]
    MessageInterrupted(u32),
    #[error("more than {BYTES_BEFORE_PUBLISH_MAX} bytes before publish")]
    BytesBeforePublish,
}

/// Turns a byte stream into messages.
#[derive(Debug)]
pub struct ChunkReader {
    streams: HashMap<u32, ChunkStream>,
    chunk_size: u32,
    /// The chunk whose payload is being read: its chunk stream, and how many bytes of it are still to come.
    open: Option<(u32, usize)>,
    partials: usize,
    partial_bytes: usize,
    /// Bytes still allowed; `None` once published.
    budget: Option<u64>,
}

/// What one chunk stream remembers from its last header, and its unfinished message.
#[derive(Debug, Clone, Default)]
struct ChunkStream {
    timestamp: u32,
    /// The last time field: what a header without one adds to `timestamp`.
    delta: u32,
    extended: bool,
    length: usize,
    type_id: u8,
    stream_id: u32,
    partial: Option<BytesMut>,
}

/// A chunk header, taken apart but not yet applied.
struct Header {
    chunk_stream: u32,
    bytes: usize,
    /// `None`: the message goes on.
    begins: Option<ChunkStream>,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkReader {
    pub fn new() -> Self {
        Self {
            streams: HashMap::new(),
            chunk_size: CHUNK_SIZE_DEFAULT,
            open: None,
            partials: 0,
            partial_bytes: 0,
            budget: Some(BYTES_BEFORE_PUBLISH_MAX),
        }
    }

    /// Lifts [`BYTES_BEFORE_PUBLISH_MAX`]: the peer was let in.
    pub fn raise_limits(&mut self) {
        self.budget = None;
    }

    /// Takes bytes off the front of `input` until a message is whole. `None`: needs more input; at most one incomplete
    /// header then stays in `input`. Payload is copied once, from `input` into its message.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ChunkError> {
        loop {
            let (id, wanted) = match self.open {
                Some(open) => open,
                None => match self.begin_chunk(input)? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let taken = wanted.min(input.len());
            self.spend(taken)?;
            let Some(stream) = self.streams.get_mut(&id) else {
                return Err(ChunkError::NoPreviousHeader(id));
            };
            let partial = stream.partial.get_or_insert_default();
            partial.extend_from_slice(input.get(..taken).unwrap_or_default());
            input.advance(taken);
            if taken < wanted {
                self.open = Some((id, wanted - taken));
                return Ok(None);
            }
            self.open = None;
            if partial.len() < stream.length {
                continue;
            }
            let message = Message {
                timestamp: stream.timestamp,
                type_id: stream.type_id,
                stream_id: stream.stream_id,
                payload: stream.partial.take().unwrap_or_default().freeze(),
            };
            self.forget_partial(message.payload.len());
            if !self.obey(&message)? {
                return Ok(Some(message));
            }
        }
    }

    /// Whether a message is unfinished: a connection that ends now was cut off.
    pub fn is_inside_message(&self) -> bool {
        self.partials > 0 || self.open.is_some()
    }

    /// Reads a chunk's header and prepares its message. `None`: header incomplete.
    fn begin_chunk(&mut self, input: &mut BytesMut) -> Result<Option<(u32, usize)>, ChunkError> {
        let Some(header) = self.read_header(input)? else {
            return Ok(None);
        };
        let id = header.chunk_stream;
        self.spend(header.bytes)?;
        input.advance(header.bytes);
        if let Some(mut begun) = header.begins {
            self.admit_message(&begun)?;
            // Within the limits just checked, so the announced length is safe to reserve.
            begun.partial = Some(BytesMut::with_capacity(begun.length));
            self.partials += 1;
            self.partial_bytes += begun.length;
            self.streams.insert(id, begun);
        }
        let stream = self.streams.get(&id).ok_or(ChunkError::NoPreviousHeader(id))?;
        let have = stream.partial.as_ref().map_or(0, BytesMut::len);
        let missing = stream.length.saturating_sub(have);
        let open = (id, missing.min(self.chunk_size as usize));
        self.open = Some(open);
        Ok(Some(open))
    }

    /// Sections 5.3.1.1 to 5.3.1.3. `None`: incomplete.
    fn read_header(&self, input: &[u8]) -> Result<Option<Header>, ChunkError> {
        let mut fields = Fields { rest: input };
        let Some(first) = fields.take(1) else { return Ok(None) };
        let format = first >> 6;
        let chunk_stream = match first & 0x3f {
            0 => fields.take(1).map(|b| b + 64),
            1 => fields.take(2).map(|b| (b >> 8) + (b & 0xff) * 256 + 64),
            id => Some(id),
        };
        let Some(chunk_stream) = chunk_stream else {
            return Ok(None);
        };

        let known = self.streams.get(&chunk_stream);
        if known.is_none() && self.streams.len() >= CHUNK_STREAMS_MAX {
            return Err(ChunkError::TooManyChunkStreams);
        }
        let inside = known.is_some_and(|s| s.partial.is_some());
        if inside && format != 3 {
            return Err(ChunkError::MessageInterrupted(chunk_stream));
        }
        // Some librtmp clients open a chunk stream with format 1; stream 0 and time 0 are then meant.
        if known.is_none() && format >= 2 {
            return Err(ChunkError::NoPreviousHeader(chunk_stream));
        }
        let mut stream = known.map(ChunkStream::header).unwrap_or_default();

        let mut time = None;
        if format <= 2 {
            let Some(field) = fields.take(3) else { return Ok(None) };
            stream.extended = field == TIME_IS_EXTENDED;
            time = Some(field);
        }
        if format <= 1 {
            let (Some(length), Some(type_id)) = (fields.take(3), fields.take(1)) else {
                return Ok(None);
            };
            stream.length = length as usize;
            stream.type_id = type_id as u8;
        }
        if format == 0 {
            let Some(id) = fields.take(4) else { return Ok(None) };
            stream.stream_id = id.swap_bytes();
        }
        if stream.extended {
            let Some(extended) = Fields { rest: fields.rest }.take(4) else {
                return Ok(None);
            };
            // The field is repeated in front of a message's later chunks, except by encoders that forget to: what
            // differs from the known value is payload.
            if !inside || extended == stream.delta {
                fields.take(4);
                time = Some(extended);
            }
        }
        let bytes = input.len() - fields.rest.len();
        if inside {
            return Ok(Some(Header {
                chunk_stream,
                bytes,
                begins: None,
            }));
        }
        if let Some(time) = time {
            stream.delta = time;
        }
        stream.timestamp = match format {
            0 => stream.delta,
            // A bare header after a full one repeats its time as a delta (section 5.3.1.2.4).
            _ => stream.timestamp.wrapping_add(stream.delta),
        };
        Ok(Some(Header {
            chunk_stream,
            bytes,
            begins: Some(stream),
        }))
    }

    fn admit_message(&self, stream: &ChunkStream) -> Result<(), ChunkError> {
        let limit = match stream.type_id {
            message_type::AUDIO | message_type::VIDEO => MEDIA_MESSAGE_MAX,
            _ => CONTROL_MESSAGE_MAX,
        };
        if stream.length > limit {
            return Err(ChunkError::MessageTooLong {
                type_id: stream.type_id,
                length: stream.length,
                limit,
            });
        }
        if self.budget.is_some_and(|left| stream.length as u64 > left) {
            return Err(ChunkError::BytesBeforePublish);
        }
        if self.partials >= PARTIALS_MAX || self.partial_bytes + stream.length > PARTIAL_BYTES_MAX {
            return Err(ChunkError::TooManyPartials);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ChunkError> {
        if let Some(left) = &mut self.budget {
            *left = left.checked_sub(bytes as u64).ok_or(ChunkError::BytesBeforePublish)?;
        }
        Ok(())
    }

    fn forget_partial(&mut self, length: usize) {
        self.partials = self.partials.saturating_sub(1);
        self.partial_bytes = self.partial_bytes.saturating_sub(length);
    }

    /// True if the message was for this layer (sections 5.4.1, 5.4.2).
    fn obey(&mut self, message: &Message) -> Result<bool, ChunkError> {
        if !matches!(message.type_id, message_type::SET_CHUNK_SIZE | message_type::ABORT) {
            return Ok(false);
        }
        let value = Fields { rest: &message.payload }
            .take(4)
            .ok_or(ChunkError::ShortControlMessage(message.type_id))?;
        if message.type_id == message_type::SET_CHUNK_SIZE {
            if !(1..=CHUNK_SIZE_MAX).contains(&value) {
                return Err(ChunkError::ChunkSize(value));
            }
            self.chunk_size = value;
        } else if let Some(stream) = self.streams.get_mut(&value)
            && stream.partial.take().is_some()
        {
            let length = stream.length;
            self.forget_partial(length);
        }
        Ok(true)
    }
}

impl ChunkStream {
    /// Everything but the unfinished message.
    fn header(&self) -> Self {
        Self { partial: None, ..*self }
    }
}

/// Big-endian fields off the front of a slice.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    /// `bytes` is at most 4. `None`: too few, nothing taken.
    fn take(&mut self, bytes: usize) -> Option<u32> {
        let (field, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(field.iter().fold(0, |value, &b| (value << 8) | u32::from(b)))
    }
}

#[cfg(test)]
mod tests;
