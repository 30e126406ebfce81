//! What a server says to a publisher: chunks in, [`Reply`] out (RTMP 1.0 sections 5.3, 5.4, 7.2). Pure and bounded.

use bytes::{Buf, Bytes, BytesMut};

use self::amf::CommandReader;

mod amf;

/// Longest message a server may send us, in bytes: replies are short texts.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;
/// Most chunk streams a server may use at once.
pub const MAX_CHUNK_STREAMS: usize = 16;
const MAX_CHUNK_SIZE: u32 = 1 << 20;

/// Why a server's words could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the server announced a message of {0} bytes, the limit is {MAX_REPLY_BYTES}")]
    TooLong(usize),
    #[error("the server uses more than {MAX_CHUNK_STREAMS} chunk streams")]
    TooManyChunkStreams,
    #[error("the server continued a chunk stream that it never began")]
    NoHeader,
    #[error("the server set its chunk size to {0}")]
    ChunkSize(u32),
    #[error("the server sent a command that is not AMF0, or is nested too deeply")]
    Command,
}

/// A message that matters to a publisher.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Command(Command),
    /// A ping; the same 4 bytes go back.
    Ping([u8; 4]),
}

/// A command, with the few values that servers answer with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Command {
    /// `_result`, `_error`, `onStatus`, …
    pub name: String,
    pub transaction: f64,
    /// The first number after the transaction id: createStream's stream id.
    pub number: Option<f64>,
    /// `level`, `code` and `description` of the information object; empty if not said.
    pub level: String,
    pub code: String,
    pub description: String,
}

/// Puts chunks together.
#[derive(Debug)]
pub struct ReplyReader {
    buffer: BytesMut,
    chunk_size: u32,
    streams: Vec<ChunkStream>,
}

#[derive(Debug, Default)]
struct ChunkStream {
    id: u32,
    extended_timestamp: bool,
    length: usize,
    type_id: u8,
    partial: BytesMut,
}

impl Default for ReplyReader {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            chunk_size: 128,
            streams: Vec::new(),
        }
    }
}

impl ReplyReader {
    /// Adds what came from the socket; take all replies out before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole reply; `None` = more bytes are needed.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some((type_id, body)) = self.next_message()? else {
                return Ok(None);
            };
            if let Some(reply) = self.understand(type_id, &body)? {
                return Ok(Some(reply));
            }
        }
    }

    fn understand(&mut self, type_id: u8, body: &[u8]) -> Result<Option<Reply>, ReplyError> {
        const PING_REQUEST: u16 = 6;
        let number = |at| body.get(at..at + 4).and_then(|b| b.try_into().ok());
        match type_id {
            1 => {
                let size = number(0).map_or(0, u32::from_be_bytes);
                if !(1..=MAX_CHUNK_SIZE).contains(&size) {
                    return Err(ReplyError::ChunkSize(size));
                }
                self.chunk_size = size;
            }
            2 => {
                let aborted = number(0).map(u32::from_be_bytes);
                for stream in self.streams.iter_mut().filter(|stream| Some(stream.id) == aborted) {
                    stream.partial.clear();
                }
            }
            4 if body.starts_with(&PING_REQUEST.to_be_bytes()) => return Ok(number(2).map(Reply::Ping)),
            20 => return CommandReader::read(body).map(|command| Some(Reply::Command(command))),
            _ => {} // acknowledgements, window sizes, data: nothing a publisher has to act on
        }
        Ok(None)
    }

    /// Takes chunks until a message is whole.
    fn next_message(&mut self) -> Result<Option<(u8, Bytes)>, ReplyError> {
        while let Some(header) = ChunkHeader::parse(&self.buffer, &self.streams)? {
            if header.length > MAX_REPLY_BYTES {
                return Err(ReplyError::TooLong(header.length));
            }
            let index = match self.streams.iter().position(|stream| stream.id == header.chunk_stream) {
                Some(index) => index,
                None if self.streams.len() >= MAX_CHUNK_STREAMS => return Err(ReplyError::TooManyChunkStreams),
                None => {
                    self.streams.push(ChunkStream {
                        id: header.chunk_stream,
                        ..ChunkStream::default()
                    });
                    self.streams.len() - 1
                }
            };
            let stream = &mut self.streams[index];
            if header.begins_message {
                stream.partial.clear();
            }
            let take = (header.length.saturating_sub(stream.partial.len())).min(self.chunk_size as usize);
            if self.buffer.len() < header.size + take {
                return Ok(None);
            }
            stream.length = header.length;
            stream.type_id = header.type_id;
            stream.extended_timestamp = header.extended_timestamp;
            self.buffer.advance(header.size);
            stream.partial.extend_from_slice(&self.buffer.split_to(take));
            if stream.partial.len() >= stream.length {
                return Ok(Some((stream.type_id, stream.partial.split().freeze())));
            }
        }
        Ok(None)
    }
}

/// A chunk's header, with what it inherits filled in.
struct ChunkHeader {
    /// Bytes of the header itself.
    size: usize,
    chunk_stream: u32,
    length: usize,
    type_id: u8,
    extended_timestamp: bool,
    /// Formats 0 to 2; format 3 may continue a message.
    begins_message: bool,
}

impl ChunkHeader {
    /// `None` = the header is not whole yet.
    fn parse(bytes: &[u8], streams: &[ChunkStream]) -> Result<Option<Self>, ReplyError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (chunk_stream, basic) = match (first & 0x3F, bytes.get(1), bytes.get(2)) {
            (0, Some(&a), _) => (64 + u32::from(a), 2),
            (1, Some(&a), Some(&b)) => (64 + u32::from(a) + 256 * u32::from(b), 3),
            (0 | 1, ..) => return Ok(None),
            (id, ..) => (u32::from(id), 1),
        };
        let format = first >> 6;
        let fields = [11, 7, 3, 0][usize::from(format)];
        let Some(message) = bytes.get(basic..basic + fields) else {
            return Ok(None);
        };
        let before = streams.iter().find(|stream| stream.id == chunk_stream);
        let (length, type_id) = match (message.get(3..7), before) {
            (Some(&[a, b, c, type_id]), _) => (u32::from_be_bytes([0, a, b, c]) as usize, type_id),
            (_, Some(before)) => (before.length, before.type_id),
            _ => return Err(ReplyError::NoHeader),
        };
        let extended_timestamp = match (message.get(..3), before) {
            (Some(timestamp), _) => timestamp == [0xFF; 3],
            (None, Some(before)) => before.extended_timestamp,
            (None, None) => return Err(ReplyError::NoHeader),
        };
        let size = basic + fields + if extended_timestamp { 4 } else { 0 };
        Ok((bytes.len() >= size).then_some(Self {
            size,
            chunk_stream,
            length,
            type_id,
            extended_timestamp,
            begins_message: format != 3,
        }))
    }
}

#[cfg(test)]
mod tests {
    use rml_rtmp::{chunk_io::ChunkSerializer, messages::RtmpMessage, rml_amf0::Amf0Value, time::RtmpTimestamp};

    use super::*;

    fn refusal() -> RtmpMessage {
        let text = |s: &str| Amf0Value::Utf8String(s.to_owned());
        let info = [
            ("level", text("error")),
            ("code", text("NetStream.Publish.Denied")),
            ("description", text(&"no ".repeat(100))),
        ];
        RtmpMessage::Amf0Command {
            command_name: "onStatus".into(),
            transaction_id: 0.0,
            command_object: Amf0Value::Null,
            additional_arguments: vec![Amf0Value::Object(info.map(|(k, v)| (k.to_owned(), v)).into())],
        }
    }

    fn wire(messages: Vec<RtmpMessage>) -> Vec<u8> {
        let mut out = ChunkSerializer::new();
        let at = RtmpTimestamp::new(0x0100_0000); // extended timestamps too
        (messages.into_iter())
            .flat_map(|m| {
                out.serialize(&m.into_message_payload(at, 1).unwrap(), false, false)
                    .unwrap()
                    .bytes
            })
            .collect()
    }

    #[test]
    fn replies_are_read_whatever_pieces_they_come_in() {
        let begin = RtmpMessage::Unknown {
            type_id: 4,
            data: Bytes::from_static(&[0, 0, 0, 0, 0, 1]),
        };
        let ping = RtmpMessage::Unknown {
            type_id: 4,
            data: Bytes::from_static(&[0, 6, 1, 2, 3, 4]),
        };
        let bytes = wire(vec![begin, refusal(), ping]);
        for piece in [1, 7, bytes.len()] {
            let mut reader = ReplyReader::default();
            let mut replies = Vec::new();
            for piece in bytes.chunks(piece) {
                reader.push(piece);
                while let Some(reply) = reader.next_reply().unwrap() {
                    replies.push(reply);
                }
            }
            let expected = Command {
                name: "onStatus".into(),
                level: "error".into(),
                code: "NetStream.Publish.Denied".into(),
                description: "no ".repeat(100),
                ..Command::default()
            };
            assert_eq!(replies, [Reply::Command(expected), Reply::Ping([1, 2, 3, 4])]);
        }
    }

    #[test]
    fn a_server_cannot_make_us_hold_more_than_the_limits() {
        let mut reader = ReplyReader::default();
        reader.push(&[3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 20, 0, 0, 0, 0]);
        assert_eq!(reader.next_reply(), Err(ReplyError::TooLong(0xFF_FFFF)));

        let mut reader = ReplyReader::default();
        for id in 2..=18 {
            reader.push(&[id, 0, 0, 0, 0, 1, 0, 20, 0, 0, 0, 0]);
            reader.push(&[0; 128]);
        }
        assert_eq!(reader.next_reply(), Err(ReplyError::TooManyChunkStreams));

        let mut reader = ReplyReader::default();
        reader.push(&[0xC3]);
        assert_eq!(reader.next_reply(), Err(ReplyError::NoHeader));

        let mut reader = ReplyReader::default();
        reader.push(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reader.next_reply(), Err(ReplyError::ChunkSize(0)));
    }
}
