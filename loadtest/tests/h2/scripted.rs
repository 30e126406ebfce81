//! Servers that do what hyper never does: a few bytes for each.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use weir_loadtest::viewer::{Failure, RequestId};

use super::{MEDIA, TEXT, Viewer};

/// A server that plays a script for each connection, which it gets with its number.
pub(crate) async fn scripted<F>(
    script: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> (Arc<AtomicUsize>, SocketAddr)
where
    F: Future<Output = io::Result<Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(script(stream, nth));
        }
    });
    (connections, address)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind, flags, stream and payload of the next frame.
async fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), payload))
}

/// Reads what a connection begins with, until so many requests have come; the number of the last one's stream.
async fn read_requests(stream: &mut TcpStream, mut requests: usize) -> io::Result<u32> {
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let (kind, _, number, _) = read_frame(stream).await?;
        requests -= usize::from(kind == HEADERS);
        if requests == 0 {
            return Ok(number);
        }
    }
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// An answer in odd frames: one that only announces it, a head in two, padding, trailers.
fn odd_answer(stream: u32, body: &[u8]) -> Vec<u8> {
    let padded = [&[2], body, &[0, 0]].concat();
    [
        frame(1, 4, stream, b"\x08\x03103"),
        frame(1, 0x28, stream, b"\x01\0\0\0\0\x07\x88\x5f\x03a/b\0"),
        frame(9, 0, stream, b""),
        frame(9, 4, stream, b"\x0f\x0d\x016"),
        frame(0xbe, 0, stream, b"unheard of"),
        frame(6, 0, 0, b"12345678"),
        frame(0, 8, stream, &padded),
        frame(1, 5, stream, b"\0\x03end\x02ok"),
    ]
    .concat()
}

#[tokio::test]
async fn what_a_leaving_server_did_not_look_at_is_asked_once_more_elsewhere() {
    let (connections, address) = scripted(|mut stream, nth| async move {
        let last = read_requests(&mut stream, if nth == 0 { 2 } else { 1 }).await?;
        let mut out = frame(SETTINGS, 0, 0, &[]);
        match nth {
            0 => {
                // First that it will leave, then, when that was read, how far it got.
                out.extend(frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
                stream.write_all(&out).await?;
                assert_eq!(read_frame(&mut stream).await?.0, SETTINGS);
                out.clear();
                out.extend(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
                out.extend(odd_answer(1, b"first."));
            }
            1 => out.extend(odd_answer(last, b"again.")),
            _ => out.extend(frame(GOAWAY, 0, 0, &[0; 8])),
        }
        // One byte at a time reads the same.
        for byte in out {
            stream.write_all(&[byte]).await?;
            tokio::task::yield_now().await;
        }
        pending().await
    })
    .await;
    let mut viewer = Viewer::new(address, "http");
    viewer.send(1, "/a", TEXT);
    viewer.send(2, "/b", TEXT);
    for (id, text) in [(1, "first."), (2, "again.")] {
        let done = viewer.done().await;
        assert_eq!(done.id, RequestId(id));
        assert_eq!(String::from_utf8_lossy(&done.result.unwrap().text), text);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn settings_and_pings_are_acknowledged() {
    let (_, address) = scripted(|mut stream, _| async move {
        let request = read_requests(&mut stream, 1).await?;
        let out = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"87654321")].concat();
        stream.write_all(&out).await?;
        let (kind, flags, ..) = read_frame(&mut stream).await?;
        assert_eq!((kind, flags), (SETTINGS, 1));
        assert_eq!(read_frame(&mut stream).await?, (PING, 1, 0, b"87654321".to_vec()));
        stream.write_all(&odd_answer(request, b"heard.")).await?;
        pending().await
    })
    .await;
    assert_eq!(
        Viewer::new(address, "http").get_text("/").await.as_deref(),
        Ok("heard.")
    );
}

#[tokio::test]
async fn a_server_that_always_leaves_is_not_asked_for_ever() {
    let (connections, address) = scripted(|mut stream, _| async move {
        read_requests(&mut stream, 1).await?;
        let out = [frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat();
        stream.write_all(&out).await?;
        pending().await
    })
    .await;
    let mut viewer = Viewer::new(address, "http");
    assert_eq!(viewer.get_text("/").await, Err(Failure::Reset));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_all_its_requests() {
    for garbage in [
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(1, 4, 7, b"\x88"),
        frame(0, 0, 1, b"a body without a head"),
        frame(5, 4, 1, &[0, 0, 0, 2, 0x88]),
        frame(9, 4, 1, b"\x88"),
        [frame(1, 0, 1, b"\x88"), frame(6, 0, 0, b"12345678")].concat(),
        frame(SETTINGS, 0, 0, &[0; 7]),
    ] {
        let shown = format!("{garbage:?}");
        let (_, address) = scripted(move |mut stream, nth| {
            let garbage = garbage.clone();
            async move {
                read_requests(&mut stream, if nth == 0 { 2 } else { 1 }).await?;
                let mut out = frame(SETTINGS, 0, 0, &[]);
                out.extend(if nth == 0 { garbage } else { odd_answer(1, b"better") });
                stream.write_all(&out).await?;
                pending().await
            }
        })
        .await;
        let mut viewer = Viewer::new(address, "http");
        viewer.send(1, "/a", TEXT);
        viewer.send(2, "/b", MEDIA);
        for _ in 0..2 {
            let result = viewer.done().await.result;
            assert!(matches!(result, Err(Failure::Garbage(_))), "{shown}: {result:?}");
        }
        assert_eq!(viewer.get_text("/c").await.as_deref(), Ok("better"), "{shown}");
    }
}
