//! One RTMP publish over one TCP connection, in the command order of OBS.
//!
//! Before this: [`crate::publisher`], or a test that sends tags by hand. After this: the server under test.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use rml_rtmp::{
    chunk_io::ChunkSerializer,
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    messages::RtmpMessage,
    rml_amf0::Amf0Value,
    time::RtmpTimestamp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    reply::{Command, Reply, ReplyError, ReplyReader},
    url::{PublishUrl, UrlError},
};
use crate::tag::{Metadata, Opening, Tag, Track};

/// From the TCP connect to the accepted publish.
pub const NEGOTIATION_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may refuse to take the bytes of one message.
pub const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may take to close its side after a goodbye.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// What OBS uses; small enough that a picture needs several chunks.
const CHUNK_SIZE: u32 = 4096;

/// Why a publish did not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The caller's fault.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The caller's fault.
    #[error(transparent)]
    SrtUrl(crate::srt::url::UrlError),
    /// Nothing listens there, or the network is down: trying again may help.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    /// The peer does not speak RTMP.
    #[error("the RTMP handshake failed: {0}")]
    Handshake(String),
    /// The server said no, and why.
    #[error("the server refused: {0}")]
    Refused(Status),
    /// The server's words break the protocol.
    #[error("the server's answer cannot be understood: {0}")]
    Reply(#[from] ReplyError),
    /// The server did not answer or stopped reading.
    #[error("the server did not {0} in time")]
    TimedOut(&'static str),
    /// The server closed the connection without a word.
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// RTMP cannot carry more than 16 MiB in a message, and a transport stream not every codec.
    #[error("cannot be sent: {0}")]
    Unsendable(String),
}

/// What a server says about a publish: the information object of `onStatus` or `_error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `status`, `warning` or `error`.
    pub level: String,
    /// `NetStream.Publish.Start`, `NetConnection.Connect.Rejected`, …
    pub code: String,
    pub description: String,
}

impl Status {
    /// Whether the server ended or refused the publish.
    pub fn is_error(&self) -> bool {
        self.level == "error"
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.description, self.code)
    }
}

impl From<Command> for Status {
    fn from(command: Command) -> Self {
        // An `_error` is one, whatever level its server gives it.
        let refused = command.name == "_error";
        Self {
            level: if refused { "error".to_owned() } else { command.level },
            code: command.code,
            description: command.description,
        }
    }
}

/// An accepted publish. [`Session::close`] says goodbye; dropping it cuts the connection.
pub struct Session {
    socket: TcpStream,
    serializer: ChunkSerializer,
    replies: ReplyReader,
    incoming: BytesMut,
    /// Written before the next message: answers to pings.
    pongs: Vec<u8>,
    key: String,
    transaction: f64,
    /// The message stream that createStream gave us.
    stream_id: u32,
    bytes_sent: u64,
}

impl Session {
    /// Connects and publishes `key` (which may carry a query) at `url` (`rtmp://host[:port]/app`).
    pub async fn connect(url: &str, key: &str) -> Result<Self, PublishError> {
        let url: PublishUrl = url.parse()?;
        timeout(NEGOTIATION_LIMIT, Self::negotiate(&url, key))
            .await
            .map_err(|_| PublishError::TimedOut("accept the publish"))?
    }

    async fn negotiate(url: &PublishUrl, key: &str) -> Result<Self, PublishError> {
        let mut socket = TcpStream::connect((url.host.as_str(), url.port))
            .await
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|source| PublishError::Connect {
                address: format!("{}:{}", url.host, url.port),
                source,
            })?;
        let early = shake_hands(&mut socket).await?;
        let mut session = Self {
            socket,
            serializer: ChunkSerializer::new(),
            replies: ReplyReader::default(),
            incoming: BytesMut::with_capacity(4096),
            pongs: Vec::new(),
            key: key.to_owned(),
            transaction: 0.0,
            stream_id: 0,
            bytes_sent: 0,
        };
        session.replies.push(&early);
        session.announce_chunk_size().await?;
        session.connect_app(url).await?;
        session.create_stream().await?;
        session.publish().await?;
        Ok(session)
    }

    async fn announce_chunk_size(&mut self) -> Result<(), PublishError> {
        let packet = self
            .serializer
            .set_max_chunk_size(CHUNK_SIZE, RtmpTimestamp::new(0))
            .map_err(|e| PublishError::Unsendable(e.to_string()))?;
        self.write(&packet.bytes).await
    }

    async fn connect_app(&mut self, url: &PublishUrl) -> Result<(), PublishError> {
        let facts = [
            ("app", text(&url.app)),
            ("type", text("nonprivate")),
            ("flashVer", text("FMLE/3.0 (compatible; weir-loadtest)")),
            ("swfUrl", text(&url.tc_url())),
            ("tcUrl", text(&url.tc_url())),
        ];
        let object = Amf0Value::Object(facts.map(|(name, value)| (name.to_owned(), value)).into());
        let transaction = self.call("connect", object, vec![], 0).await?;
        self.answer_to(transaction).await.map(|_| ())
    }

    async fn create_stream(&mut self) -> Result<(), PublishError> {
        let key = text(&self.key.clone());
        // Neither of the first two needs an answer, and some servers answer with an error.
        self.call("releaseStream", Amf0Value::Null, vec![key.clone()], 0)
            .await?;
        self.call("FCPublish", Amf0Value::Null, vec![key], 0).await?;
        let transaction = self.call("createStream", Amf0Value::Null, vec![], 0).await?;
        let answer = self.answer_to(transaction).await?;
        let id = answer.number.unwrap_or(1.0);
        self.stream_id = if (1.0..=f64::from(u32::MAX)).contains(&id) {
            id as u32
        } else {
            1
        };
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), PublishError> {
        let arguments = vec![text(&self.key.clone()), text("live")];
        self.call("publish", Amf0Value::Null, arguments, self.stream_id).await?;
        loop {
            let status = self.next_status().await?;
            match status.code.as_str() {
                _ if status.is_error() => return Err(PublishError::Refused(status)),
                "NetStream.Publish.Start" => return Ok(()),
                _ => {} // a warning, or onFCPublish of some servers
            }
        }
    }

    /// Sends the metadata and both sequence headers, at time 0.
    pub async fn send_opening(&mut self, opening: &Opening) -> Result<(), PublishError> {
        self.send_metadata(&opening.metadata).await?;
        if let Some(header) = &opening.video_header {
            self.send_video(0, header.clone()).await?;
        }
        if let Some(header) = &opening.audio_header {
            self.send_audio(0, header.clone()).await?;
        }
        Ok(())
    }

    /// Sends `@setDataFrame` with this metadata.
    pub async fn send_metadata(&mut self, metadata: &Metadata) -> Result<(), PublishError> {
        const DATA_AMF0: u8 = 18;
        let message = RtmpMessage::Unknown {
            type_id: DATA_AMF0,
            data: metadata.data_frame(),
        };
        self.send(message, 0, self.stream_id).await
    }

    /// Sends a tag of a source; its time goes out modulo 2^32.
    pub async fn send_tag(&mut self, tag: Tag) -> Result<(), PublishError> {
        let timestamp_ms = tag.at_ms as u32;
        match tag.track {
            Track::Video => self.send_video(timestamp_ms, tag.payload).await,
            Track::Audio => self.send_audio(timestamp_ms, tag.payload).await,
        }
    }

    /// Sends an FLV video tag body: header byte, packet type, composition time, data.
    pub async fn send_video(&mut self, timestamp_ms: u32, payload: Bytes) -> Result<(), PublishError> {
        let message = RtmpMessage::VideoData { data: payload };
        self.send(message, timestamp_ms, self.stream_id).await
    }

    /// Sends an FLV audio tag body: header byte, packet type, data.
    pub async fn send_audio(&mut self, timestamp_ms: u32, payload: Bytes) -> Result<(), PublishError> {
        let message = RtmpMessage::AudioData { data: payload };
        self.send(message, timestamp_ms, self.stream_id).await
    }

    /// Waits for the next thing the server has to say about the publish; [`PublishError::Closed`] when it hangs up.
    /// May be dropped while waiting without losing anything. Pings are answered with the next message sent.
    pub async fn next_status(&mut self) -> Result<Status, PublishError> {
        loop {
            let command = self.next_command().await?;
            if matches!(command.name.as_str(), "onStatus" | "_error") && !command.code.is_empty() {
                return Ok(command.into());
            }
        }
    }

    /// Ends the publish as an encoder does that is told to stop: FCUnpublish, deleteStream, then the connection.
    pub async fn close(mut self) -> Result<(), PublishError> {
        let key = text(&self.key.clone());
        self.call("FCUnpublish", Amf0Value::Null, vec![key], 0).await?;
        let stream_id = Amf0Value::Number(f64::from(self.stream_id));
        self.call("deleteStream", Amf0Value::Null, vec![stream_id], 0).await?;
        self.socket.shutdown().await.map_err(PublishError::Io)?;
        // Closing with unread bytes would turn the goodbye into a reset.
        let drain = async {
            while matches!(self.socket.read_buf(&mut self.incoming).await, Ok(1..)) {
                self.incoming.clear();
            }
        };
        let _ = timeout(CLOSE_LIMIT, drain).await;
        Ok(())
    }

    /// The naked connection, for tests that send what no encoder should.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Bytes written since the handshake.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    async fn call(
        &mut self,
        name: &str,
        object: Amf0Value,
        arguments: Vec<Amf0Value>,
        stream_id: u32,
    ) -> Result<f64, PublishError> {
        self.transaction += 1.0;
        let message = RtmpMessage::Amf0Command {
            command_name: name.to_owned(),
            transaction_id: self.transaction,
            command_object: object,
            additional_arguments: arguments,
        };
        self.send(message, 0, stream_id).await?;
        Ok(self.transaction)
    }

    async fn answer_to(&mut self, transaction: f64) -> Result<Command, PublishError> {
        loop {
            let command = self.next_command().await?;
            match command.name.as_str() {
                "_result" if command.transaction == transaction => return Ok(command),
                "_error" if command.transaction == transaction => return Err(PublishError::Refused(command.into())),
                "onStatus" if command.level == "error" => return Err(PublishError::Refused(command.into())),
                _ => {}
            }
        }
    }

    async fn next_command(&mut self) -> Result<Command, PublishError> {
        loop {
            while let Some(reply) = self.replies.next_reply()? {
                match reply {
                    Reply::Command(command) => return Ok(command),
                    Reply::Ping(time) => self.answer_ping(time)?,
                }
            }
            self.incoming.clear();
            match self.socket.read_buf(&mut self.incoming).await {
                Ok(0) => return Err(PublishError::Closed),
                Ok(_) => self.replies.push(&self.incoming),
                Err(e) => return Err(PublishError::Io(e)),
            }
        }
    }

    fn answer_ping(&mut self, time: [u8; 4]) -> Result<(), PublishError> {
        const PING_RESPONSE: [u8; 2] = [0, 7];
        const MAX_QUEUED: usize = 1024;
        if self.pongs.len() < MAX_QUEUED {
            let message = RtmpMessage::Unknown {
                type_id: 4,
                data: [&PING_RESPONSE[..], &time].concat().into(),
            };
            let bytes = self.serialize(message, 0, 0)?;
            self.pongs.extend(bytes);
        }
        Ok(())
    }

    fn serialize(&mut self, message: RtmpMessage, at_ms: u32, stream_id: u32) -> Result<Vec<u8>, PublishError> {
        let unsendable = |e: &dyn std::fmt::Display| PublishError::Unsendable(e.to_string());
        let payload = message
            .into_message_payload(RtmpTimestamp::new(at_ms), stream_id)
            .map_err(|e| unsendable(&e))?;
        let packet = (self.serializer.serialize(&payload, false, false)).map_err(|e| unsendable(&e))?;
        Ok(packet.bytes)
    }

    async fn send(&mut self, message: RtmpMessage, at_ms: u32, stream_id: u32) -> Result<(), PublishError> {
        let mut bytes = std::mem::take(&mut self.pongs);
        bytes.extend(self.serialize(message, at_ms, stream_id)?);
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        match timeout(SEND_LIMIT, self.socket.write_all(bytes)).await {
            Ok(Ok(())) => {
                self.bytes_sent += bytes.len() as u64;
                Ok(())
            }
            Ok(Err(e)) => Err(self.last_words(e).await),
            Err(_) => Err(PublishError::TimedOut("take a message")),
        }
    }

    /// A server that refuses may close before we notice: its reason may still be in our receive buffer.
    async fn last_words(&mut self, broken: io::Error) -> PublishError {
        const PATIENCE: Duration = Duration::from_millis(200);
        match timeout(PATIENCE, self.next_status()).await {
            Ok(Ok(status)) if status.is_error() => PublishError::Refused(status),
            Ok(Err(PublishError::Closed)) => PublishError::Closed,
            _ => PublishError::Io(broken),
        }
    }
}

fn text(value: &str) -> Amf0Value {
    Amf0Value::Utf8String(value.to_owned())
}

/// The handshake as a client; gives back what the server sent after it.
async fn shake_hands(socket: &mut TcpStream) -> Result<Vec<u8>, PublishError> {
    let failed = |e: rml_rtmp::handshake::HandshakeError| PublishError::Handshake(e.to_string());
    let mut handshake = Handshake::new(PeerType::Client);
    let hello = handshake.generate_outbound_p0_and_p1().map_err(failed)?;
    socket.write_all(&hello).await.map_err(PublishError::Io)?;
    let mut bytes = BytesMut::with_capacity(4096);
    loop {
        bytes.clear();
        if socket.read_buf(&mut bytes).await.map_err(PublishError::Io)? == 0 {
            return Err(PublishError::Closed);
        }
        let (response, rest) = match handshake.process_bytes(&bytes).map_err(failed)? {
            HandshakeProcessResult::InProgress { response_bytes } => (response_bytes, None),
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => (response_bytes, Some(remaining_bytes)),
        };
        socket.write_all(&response).await.map_err(PublishError::Io)?;
        if let Some(rest) = rest {
            return Ok(rest);
        }
    }
}
