use std::net::SocketAddr;

use bytes::Bytes;
use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;
use crate::{demo, synthetic::Synthetic, tag::Tag};

/// What the test's server saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected(String),
    Command(String),
    Published(String),
    Metadata { width: Option<u32> },
    Video(u32, Bytes),
    Audio(u32, Bytes),
    Finished,
    Gone,
}

/// An RTMP server made of rml_rtmp's server session: an independent reading of what we write.
struct Server {
    url: String,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    /// Serves one connection; refuses the publish if `refuse`.
    async fn start(refuse: bool) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("rtmp://{}/app", listener.local_addr().unwrap());
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            serve(socket, refuse, &tell).await;
            let _ = tell.send(Seen::Gone);
        });
        Self { url, seen }
    }

    async fn next(&mut self) -> Seen {
        let patience = Duration::from_secs(10);
        (tokio::time::timeout(patience, self.seen.recv())
            .await
            .expect("the server saw nothing for 10 s"))
        .unwrap()
    }

    fn publish(&self, looped: bool, start_at: Option<SystemTime>) -> Publish {
        Publish {
            url: self.url.clone(),
            key: "demo".to_owned(),
            clip: demo::clip(),
            looped,
            start_at,
            rhythm: Rhythm::default(),
        }
    }
}

async fn serve(mut socket: TcpStream, refuse: bool, tell: &mpsc::UnboundedSender<Seen>) {
    let mut handshake = Handshake::new(PeerType::Server);
    let mut buffer = vec![0; 64 * 1024];
    let mut early = loop {
        let n = socket.read(&mut buffer).await.unwrap();
        match handshake.process_bytes(&buffer[..n]).unwrap() {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await.unwrap(),
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                socket.write_all(&response_bytes).await.unwrap();
                break Some(remaining_bytes);
            }
        }
    };
    let (mut session, mut results) = ServerSession::new(ServerSessionConfig::new()).unwrap();
    loop {
        while !results.is_empty() {
            match results.remove(0) {
                ServerSessionResult::OutboundResponse(packet) => {
                    let _ = socket.write_all(&packet.bytes).await;
                }
                ServerSessionResult::RaisedEvent(event) => {
                    results.extend(answer(&mut session, event, refuse, tell));
                }
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        results = match early.take() {
            Some(bytes) => session.handle_input(&bytes).unwrap(),
            None => match socket.read(&mut buffer).await {
                Ok(n @ 1..) => session.handle_input(&buffer[..n]).unwrap(),
                _ => return,
            },
        };
    }
}

fn answer(
    session: &mut ServerSession,
    event: ServerSessionEvent,
    refuse: bool,
    tell: &mpsc::UnboundedSender<Seen>,
) -> Vec<ServerSessionResult> {
    let (seen, request) = match event {
        ServerSessionEvent::ConnectionRequested { request_id, app_name } => {
            (Seen::Connected(app_name), Some(request_id))
        }
        ServerSessionEvent::UnhandleableAmf0Command { command_name, .. } => (Seen::Command(command_name), None),
        ServerSessionEvent::PublishStreamRequested {
            request_id, stream_key, ..
        } => (Seen::Published(stream_key), Some(request_id)),
        ServerSessionEvent::StreamMetadataChanged { metadata, .. } => (
            Seen::Metadata {
                width: metadata.video_width,
            },
            None,
        ),
        ServerSessionEvent::VideoDataReceived { data, timestamp, .. } => (Seen::Video(timestamp.value, data), None),
        ServerSessionEvent::AudioDataReceived { data, timestamp, .. } => (Seen::Audio(timestamp.value, data), None),
        ServerSessionEvent::PublishStreamFinished { .. } => (Seen::Finished, None),
        _ => return Vec::new(),
    };
    let refused = refuse && matches!(seen, Seen::Published(_));
    let _ = tell.send(seen);
    match request {
        Some(id) if refused => session
            .reject_request(id, "NetStream.Publish.BadName", "unknown stream key")
            .unwrap(),
        Some(id) => session.accept_request(id).unwrap(),
        None => Vec::new(),
    }
}

#[tokio::test]
async fn a_clip_arrives_in_the_order_an_encoder_speaks() {
    let mut server = Server::start(false).await;
    let stop = CancellationToken::new();
    let publisher = tokio::spawn(publish(server.publish(true, None), stop.clone()));
    assert_eq!(server.next().await, Seen::Connected("app".into()));
    assert_eq!(server.next().await, Seen::Command("releaseStream".into()));
    assert_eq!(server.next().await, Seen::Command("FCPublish".into()));
    assert_eq!(server.next().await, Seen::Published("demo".into()));
    assert_eq!(server.next().await, Seen::Metadata { width: Some(1280) });
    assert_eq!(
        server.next().await,
        Seen::Video(0, demo::clip().video_header().unwrap().clone())
    );
    assert_eq!(
        server.next().await,
        Seen::Audio(0, demo::clip().audio_header().unwrap().clone())
    );

    let mut expected = ClipLoop::new(demo::clip(), 0, true);
    for _ in 0..60 {
        let tag = expected.next_tag().unwrap();
        let at = tag.at_ms as u32;
        let seen = match tag.track {
            Track::Video => Seen::Video(at, tag.payload),
            Track::Audio => Seen::Audio(at, tag.payload),
        };
        assert_eq!(server.next().await, seen);
    }
    stop.cancel();
    let report = publisher.await.unwrap().unwrap();
    assert!(report.video_frames + report.audio_frames >= 60, "{report:?}");
    while !matches!(server.next().await, Seen::Finished) {}
    assert_eq!(server.next().await, Seen::Gone);
}

#[tokio::test]
async fn a_refusal_carries_the_servers_reason() {
    let server = Server::start(true).await;
    let refused = publish(server.publish(true, None), CancellationToken::new()).await;
    let Err(PublishError::Refused(status)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(status.code, "NetStream.Publish.BadName");
    assert_eq!(status.description, "unknown stream key");
}

#[tokio::test]
async fn a_test_can_speak_for_itself_and_hang_up_without_a_word() {
    let mut server = Server::start(false).await;
    let mut session = rtmp::Session::connect(&server.url, "by-hand").await.unwrap();
    while !matches!(server.next().await, Seen::Published(_)) {}
    let mut source = Synthetic::default().source();
    session.send_metadata(&source.opening().metadata).await.unwrap();
    assert_eq!(server.next().await, Seen::Metadata { width: Some(1280) });
    let Tag { payload, .. } = source.next_tag().unwrap();
    // Times of 24 bits and above take another form on the wire.
    for at in [0, 33, 0x00FF_FFFF, 0x0100_0000, 0x0100_0021, u32::MAX, 5] {
        session.send_video(at, payload.clone()).await.unwrap();
        assert_eq!(server.next().await, Seen::Video(at, payload.clone()));
    }
    drop(session);
    assert_eq!(server.next().await, Seen::Gone, "no goodbye came before");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_speak_rtmp_is_told_apart() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("rtmp://{address}/app");
    let (session, ()) = tokio::join!(rtmp::Session::connect(&url, "k"), async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(listener);
    });
    assert!(matches!(
        session.err(),
        Some(PublishError::Handshake(_) | PublishError::Closed | PublishError::Io(_))
    ));
    let nobody = rtmp::Session::connect(&url, "k").await.err();
    assert!(matches!(nobody, Some(PublishError::Connect { .. })), "{nobody:?}");
    let wrong = rtmp::Session::connect("http://a/app", "k").await.err();
    assert!(matches!(wrong, Some(PublishError::Url(_))), "{wrong:?}");
}

#[test]
fn a_publish_in_step_with_the_unix_clock_shows_its_own_age() {
    let publish = Publish {
        url: String::new(),
        key: String::new(),
        clip: demo::clip(),
        looped: true,
        start_at: Some(SystemTime::UNIX_EPOCH),
        rhythm: Rhythm::default(),
    };
    let now = Instant::now();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_000_007_300_250);
    let (source, start) = line_up(&publish, wall, now);
    assert_eq!(source.start_ms(), 1_795_000_008_000, "the next key frame");
    assert_eq!(start - now, Duration::from_micros(699_750));

    let ahead = Publish {
        start_at: Some(wall + Duration::from_secs(3)),
        ..publish
    };
    let (source, start) = line_up(&ahead, wall, now);
    assert_eq!((source.start_ms(), start - now), (0, Duration::from_secs(3)));
}
