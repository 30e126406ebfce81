//! The listener on real sockets, with a client whose bytes are made by hand.

use std::net::Ipv4Addr;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    codec::avc::tests::X264_720P30,
    ingest::{
        Admitted, Event, Publication, Refusal, admission,
        catalog::{Catalog, SaltSecret},
        lobby::Places,
        rtmp::{
            Limits,
            amf0::{self, Value},
            chunk::{ChunkReader, Message, message_type},
        },
    },
    package::frame::{Frame, TrackKind},
};

/// Far longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a door hands to the test for every publish it lets in.
struct LetIn {
    admitted: Admitted,
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
}

/// Lets in everybody but the key `taken`.
struct OpenDoor(mpsc::UnboundedSender<LetIn>);

impl Door for OpenDoor {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        if admitted.key().as_str() == "taken" {
            return Err(Refusal::Busy);
        }
        let (sender, events) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let publication = Publication {
            events: sender,
            stop: stop.clone(),
            tally: Arc::default(),
        };
        let _ = self.0.send(LetIn { admitted, events, stop });
        Ok(publication)
    }
}

struct Running {
    address: SocketAddr,
    config: Config,
    let_in: mpsc::UnboundedReceiver<LetIn>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (sender, let_in) = mpsc::unbounded_channel();
        let config = Config {
            limits,
            ..Config::default()
        };
        let shutdown = CancellationToken::new();
        let catalog = Arc::new(Catalog::new(true, SaltSecret::random()));
        let admission = Arc::new(Admission::new(catalog, None, admission::Metrics::default()));
        let server = Server::new(config.clone(), admission, Arc::new(OpenDoor(sender)), shutdown.clone());
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(async move {
                let never = CancellationToken::new();
                let all = server.clone();
                server.listen(listener, Entrance::Shared, Wrapping::Plain, never).await;
                all.drained().await;
            }),
            config,
            let_in,
            shutdown,
        }
    }

    fn ended(&self, reason: &str) -> u64 {
        self.config.metrics.ended.with_label_values(&[reason]).get()
    }

    async fn publisher(&mut self, key: &str) -> (Client, LetIn) {
        let mut client = Client::shaken(self.address).await;
        client.publish(key).await;
        client.expect("onStatus").await;
        let let_in = timeout(PATIENCE, self.let_in.recv()).await.unwrap().unwrap();
        (client, let_in)
    }
}

impl LetIn {
    async fn event(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.events.recv()).await.unwrap()
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Event::Frame(frame) = self.event().await.expect("the publish goes on") {
                return frame;
            }
        }
    }
}

struct Client {
    socket: TcpStream,
    reader: ChunkReader,
    input: BytesMut,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let mut reader = ChunkReader::new();
        reader.raise_limits();
        Self {
            socket: TcpStream::connect(address).await.unwrap(),
            reader,
            input: BytesMut::new(),
        }
    }

    /// After a plain handshake (section 5.2).
    async fn shaken(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.send(&[&[3][..], &[0; 1536]].concat()).await;
        let mut answer = vec![0; 1 + 2 * 1536];
        timeout(PATIENCE, client.socket.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        client.send(&answer[1..1537]).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// One message in chunks of 128 bytes.
    async fn message(&mut self, chunk_stream: u8, time: u32, type_id: u8, payload: &[u8]) {
        self.send(&chunks(chunk_stream, time, type_id, payload)).await;
    }

    async fn command(&mut self, values: &[Value]) {
        self.message(3, 0, message_type::COMMAND_AMF0, &amf0::encode(values))
            .await;
    }

    async fn connect_app(&mut self, app: &str) {
        let object = Value::Object(vec![("app".into(), app.into())]);
        self.command(&["connect".into(), 1.0.into(), object]).await;
    }

    /// The commands in OBS's order, all at once.
    async fn publish(&mut self, key: &str) {
        self.connect_app("app").await;
        for (name, transaction) in [("releaseStream", 2.0), ("FCPublish", 3.0)] {
            self.command(&[name.into(), transaction.into(), Value::Null, key.into()])
                .await;
        }
        self.command(&["createStream".into(), 4.0.into(), Value::Null]).await;
        self.command(&["publish".into(), 5.0.into(), Value::Null, key.into(), "live".into()])
            .await;
    }

    async fn media_config(&mut self) {
        self.message(4, 0, 9, &[&[0x17, 0, 0, 0, 0], X264_720P30].concat())
            .await;
        self.message(4, 0, 8, &[0xaf, 0, 0x12, 0x10]).await;
    }

    async fn key_frame(&mut self, time: u32) {
        self.message(4, time, 9, KEY_FRAME).await;
    }

    /// The next message; `None`: the server closed.
    async fn answer(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.reader.next(&mut self.input).unwrap() {
                return Some(message);
            }
            let read = self.socket.read_buf(&mut self.input);
            if timeout(PATIENCE, read).await.unwrap().unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads on to a command that says `text` anywhere.
    async fn expect(&mut self, text: &str) -> Message {
        while let Some(message) = self.answer().await {
            if message.payload.windows(text.len()).any(|w| w == text.as_bytes()) {
                return message;
            }
        }
        panic!("closed without {text:?}");
    }

    async fn closed(&mut self) {
        while self.answer().await.is_some() {}
    }
}

/// FLV header and one IDR slice.
const KEY_FRAME: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0xaa];

fn chunks(chunk_stream: u8, time: u32, type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![chunk_stream];
    bytes.extend(&time.to_be_bytes()[1..]);
    bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.push(type_id);
    bytes.extend(1u32.to_le_bytes());
    for (n, piece) in payload.chunks(128).enumerate() {
        if n > 0 {
            bytes.push(0xc0 | chunk_stream);
        }
        bytes.extend(piece);
    }
    bytes
}

#[tokio::test]
async fn a_publish_from_hello_to_goodbye() {
    let mut server = Running::start(Limits::default()).await;
    let (mut client, mut let_in) = server.publisher("show?token=t").await;
    assert_eq!(let_in.admitted.key().as_str(), "show");
    assert_eq!(let_in.admitted.line().local, server.address);

    let metadata = Value::Object(vec![("framerate".into(), 30.0.into())]);
    let metadata = amf0::encode(&["@setDataFrame".into(), "onMetaData".into(), metadata]);
    client.message(4, 0, message_type::DATA_AMF0, &metadata).await;
    client.message(4, 0, message_type::DATA_AMF0, &metadata).await;
    client.media_config().await;
    client.key_frame(0).await;
    client.message(4, 20, 8, &[0xaf, 1, 1, 2, 3]).await;
    assert!(matches!(let_in.event().await, Some(Event::Announced(a)) if a.frame_rate == Some(30.0)));
    assert!(matches!(let_in.event().await, Some(Event::Config(_, c)) if c.track() == TrackKind::Video));
    assert!(matches!(let_in.event().await, Some(Event::Config(_, c)) if c.track() == TrackKind::Audio));
    let video = let_in.frame().await;
    assert!(video.key);
    assert_eq!(video.dts.as_millis(), 1000);
    let audio = let_in.frame().await;
    assert_eq!((audio.dts.as_millis(), &audio.data[..]), (1020, &[1, 2, 3][..]));

    client
        .command(&["FCUnpublish".into(), 6.0.into(), Value::Null, "show".into()])
        .await;
    client.expect("NetStream.Unpublish.Success").await;
    assert!(let_in.event().await.is_none());
    // The peer closes first.
    client.socket.shutdown().await.unwrap();
    client.closed().await;
    assert_eq!(server.ended("unpublished"), 1);
}

#[tokio::test]
async fn pings_and_windows_are_answered() {
    let mut server = Running::start(Limits::default()).await;
    let (mut client, mut let_in) = server.publisher("show").await;
    client
        .message(2, 0, message_type::USER_CONTROL, &[0, 6, 1, 2, 3, 4])
        .await;
    let pong = client.answer().await.unwrap();
    assert_eq!(pong.payload, &[0u8, 7, 1, 2, 3, 4][..]);
    client
        .message(2, 0, message_type::WINDOW_ACK_SIZE, &8192u32.to_be_bytes())
        .await;
    client.media_config().await;
    client.message(4, 0, 8, &[&[0xaf, 1][..], &[7; 9000]].concat()).await;
    let_in.frame().await;
    let acknowledged = client.answer().await.unwrap();
    assert_eq!(acknowledged.type_id, message_type::ACKNOWLEDGEMENT);
}

/// Each hostile peer ends for its own reason, while another broadcast runs on.
#[tokio::test]
async fn hostile_input_costs_one_connection_only() {
    let mut server = Running::start(Limits::default()).await;
    let (mut healthy, mut watched) = server.publisher("healthy").await;
    healthy.media_config().await;

    let nested = [0x03, 0, 1, b'a'].repeat(10_000);
    let too_long = [&[6, 0, 0, 0, 0xff, 0xff, 0xff, 9][..], &[1, 0, 0, 0]].concat();
    let cut = [&chunks(6, 0, 9, &[0; 300])[..100]].concat();
    let no_sets = chunks(4, 0, 9, &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe0, 0]);
    let vp9 = chunks(4, 0, 9, b"\x90vp09\x01\x02");
    let mp3 = chunks(4, 0, 8, &[0x2f, 0xff, 0xfb]);
    let cases: [(&str, bool, Vec<u8>, &str); 7] = [
        (
            "handshake",
            false,
            b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n".to_vec(),
            "",
        ),
        ("chunk", true, too_long, ""),
        ("command", true, chunks(3, 0, 20, &nested), ""),
        ("cut_off", true, cut, ""),
        ("media", true, no_sets, "without parameter sets"),
        ("media", true, vp9, "vp09"),
        ("media", true, mp3, "MP3"),
    ];
    for (n, (reason, publishing, bytes, told)) in cases.into_iter().enumerate() {
        let before = server.ended(reason);
        let mut hostile = if publishing {
            server.publisher("hostile").await.0
        } else {
            Client::connect(server.address).await
        };
        hostile.send(&bytes).await;
        if reason == "cut_off" {
            hostile.socket.shutdown().await.unwrap();
        }
        if !told.is_empty() {
            hostile.expect(told).await;
        }
        hostile.closed().await;
        assert_eq!(server.ended(reason), before + 1, "case {n}");

        healthy.key_frame(n as u32 * 33).await;
        let at = watched.frame().await.dts.as_millis();
        assert_eq!(at, 1000 + n as i64 * 33);
    }
}

#[tokio::test]
async fn interleaved_chunk_streams_arrive_whole() {
    let mut server = Running::start(Limits::default()).await;
    let (mut client, mut let_in) = server.publisher("show").await;
    client.media_config().await;
    let mut unit = vec![0x17, 1, 0, 0, 0, 0, 0, 0, 200, 0x65];
    unit.resize(9 + 200, 0xaa);
    let video = chunks(6, 40, 9, &unit);
    let (head, tail) = video.split_at(12 + 128);
    client.send(head).await;
    client.message(4, 23, 8, &[0xaf, 1, 5]).await;
    client.send(tail).await;
    assert_eq!(let_in.frame().await.track.kind, TrackKind::Audio);
    assert_eq!(let_in.frame().await.data.len(), 204);
}

#[tokio::test]
async fn refusals_reach_the_encoder_before_the_connection_closes() {
    let server = Running::start(Limits::default()).await;
    for (key, reason) in [("taken", "refused"), ("no/such", "refused"), ("", "refused")] {
        let before = server.ended(reason);
        let mut client = Client::shaken(server.address).await;
        client.publish(key).await;
        client.expect("NetStream.Publish.BadName").await;
        client.closed().await;
        assert_eq!(server.ended(reason), before + 1);
    }
    let mut client = Client::shaken(server.address).await;
    client.connect_app("other?x=y").await;
    client.expect("_error").await;
    client.closed().await;
    assert_eq!(server.ended("refused"), 4);
    // A query and a slash behind the name are not part of it.
    let mut client = Client::shaken(server.address).await;
    client.connect_app("app/?t=1").await;
    client.expect("NetConnection.Connect.Success").await;
}

#[tokio::test]
async fn a_stranger_has_ten_seconds_and_an_encoder_may_not_fall_silent() {
    let short = Duration::from_millis(150);
    let mut server = Running::start(Limits {
        publish_within: short,
        ..Limits::default()
    })
    .await;
    let mut idle = Client::shaken(server.address).await;
    idle.closed().await;
    assert_eq!(server.ended("publish_timeout"), 1);
    server.shutdown.cancel();

    server = Running::start(Limits {
        silence: short,
        ..Limits::default()
    })
    .await;
    let (mut silent, mut let_in) = server.publisher("show").await;
    silent.closed().await;
    assert_eq!(server.ended("silent"), 1);
    assert!(let_in.event().await.is_none());
}

#[tokio::test]
async fn an_encoder_that_falls_silent_is_asked_whether_it_is_there() {
    let mut server = Running::start(Limits {
        ping_after: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let (mut silent, _let_in) = server.publisher("show").await;
    for _ in 0..2 {
        let ping = loop {
            let message = silent.answer().await.expect("it stays connected");
            if message.type_id == message_type::USER_CONTROL && message.payload.starts_with(&[0, 6]) {
                break message;
            }
        };
        assert_eq!(ping.payload.len(), 6);
    }
}

#[tokio::test]
async fn a_stopped_publish_is_told_and_closed() {
    let mut server = Running::start(Limits::default()).await;
    let (mut client, let_in) = server.publisher("show").await;
    let_in.stop.cancel();
    client.expect("NetStream.Publish.Rejected").await;
    client.closed().await;
    assert_eq!(server.ended("stopped"), 1);
}

#[tokio::test]
async fn a_full_pipeline_stops_the_reading_and_loses_nothing() {
    let mut server = Running::start(Limits::default()).await;
    let (mut client, mut let_in) = server.publisher("show").await;
    client.media_config().await;
    for n in 0..50 {
        client.key_frame(n * 33).await;
    }
    for n in 0..50 {
        assert_eq!(let_in.frame().await.dts.as_millis(), 1000 + n * 33);
    }
}

#[tokio::test]
async fn connections_are_bounded_and_shutdown_waits_for_them() {
    let mut server = Running::start(Limits {
        places: Places {
            connections: 1,
            ..Places::default()
        },
        ..Limits::default()
    })
    .await;
    let (mut first, _let_in) = server.publisher("show").await;
    let mut second = Client::connect(server.address).await;
    second.closed().await;
    assert_eq!(server.config.metrics.over_limit.with_label_values(&["total"]).get(), 1);

    server.shutdown.cancel();
    first.expect("NetStream.Publish.Rejected").await;
    drop(first);
    timeout(PATIENCE, server.task).await.unwrap().unwrap();
    assert_eq!(server.config.metrics.connections.get(), 0);
}
