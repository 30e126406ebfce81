//! What many viewers get at once lies in the kernel's memory for a moment, and is sent from there without a copy.
//!
//! A part goes to thousands of plain HTTP/1.1 connections within milliseconds. `write` copies it for each of them into memory of the
//! socket, which stays taken until the viewer has acknowledged it. `sendfile` from a file in memory, a sheet, lets all sockets refer to the
//! same pages; the head, which is the same for all as long as the second lasts, lies in front of it. TLS and QUIC encrypt for
//! each viewer and have no use for this.
//!
//! Before this: `h1.rs`, with an answer's pieces. After this: the socket.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::{
    fs::{MemfdFlags, memfd_create, sendfile},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Shorter pieces are copied: that takes less time than finding their pages.
const LEAST_BYTES: usize = 16 << 10;
/// Times a piece is copied before it gets a sheet: making one takes as long as it saves with about as many.
const COPIES: u32 = 8;
/// Pieces that are remembered at a time; they go in the order in which they came.
const MOST: usize = 256;
/// Bytes of them; and bytes of all sheets there are, those included that slow clients still hold when their piece is forgotten.
const MOST_BYTES: usize = 32 << 20;
/// How long a piece is remembered: viewers who follow a broadcast ask for the same within a second, others later and seldom.
const LIFE: Duration = Duration::from_secs(5);

/// A stream that may have nothing between what is written to it and its socket.
pub(super) trait Plain {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Plain for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// A head and the piece that follows it, in the kernel's memory.
#[derive(Debug)]
pub(super) struct Sheet {
    file: File,
    head: Vec<u8>,
    /// Of both.
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Sheet {
    /// `None`: there is no room for it, or no file to be had.
    fn new(head: &[u8], piece: &Bytes, room: &Arc<Semaphore>) -> Option<Self> {
        let bytes = head.len() + piece.len();
        let room = room.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        let file = File::from(memfd_create("weir-sheet", MemfdFlags::CLOEXEC).ok()?);
        file.write_all_at(head, 0).ok()?;
        file.write_all_at(piece, head.len() as u64).ok()?;
        Some(Self {
            file,
            head: head.to_vec(),
            bytes,
            _room: room,
        })
    }

    #[cfg(test)]
    pub(super) fn lone(head: &[u8], piece: &Bytes) -> Self {
        Self::new(head, piece, &Arc::new(Semaphore::new(MOST_BYTES))).unwrap()
    }

    /// What lies in front of the piece.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    #[cfg(test)]
    pub(super) fn read(&self, from: usize, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most.min(self.bytes - from)];
        self.file.read_exact_at(&mut bytes, from as u64).unwrap();
        bytes
    }

    /// Sends what there is room for of the bytes from `from` on, and says how many those are.
    pub(super) fn poll_send(&self, socket: &TcpStream, from: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.bytes.saturating_sub(from);
        poll_write(socket, cx, || {
            let mut offset = from as u64;
            Ok(sendfile(socket, &self.file, Some(&mut offset), left)?)
        })
    }
}

/// Sends what comes before a sheet, to leave with the sheet's first bytes.
pub(super) fn poll_send_ahead(
    socket: &TcpStream,
    slices: &[IoSlice<'_>],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    poll_write(socket, cx, || {
        Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
    })
}

fn poll_write(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, &mut write) {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// The sheets of a node; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Sheets(Arc<Store>);

#[derive(Debug)]
struct Store {
    shelf: Mutex<Shelf>,
    /// For the bytes of sheets.
    room: Arc<Semaphore>,
}

impl Default for Sheets {
    fn default() -> Self {
        Self(Arc::new(Store {
            shelf: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_BYTES)),
        }))
    }
}

/// Where a piece is in memory, and how long it is. As long as it is remembered, nothing else is there.
type Place = (usize, usize);

#[derive(Debug, Default)]
struct Shelf {
    pieces: HashMap<Place, Remembered>,
    /// The oldest first.
    order: VecDeque<(Instant, Place)>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    piece: Bytes,
    sent: u32,
    sheet: Option<Arc<Sheet>>,
}

impl Sheets {
    /// A sheet of `piece`, if it is sent often enough to be worth one; this time is counted. `head`: what goes before it.
    pub(super) fn of(&self, piece: &Bytes, head: Option<&[u8]>) -> Option<Arc<Sheet>> {
        if !(LEAST_BYTES..=MOST_BYTES).contains(&piece.len()) {
            return None;
        }
        let place = (piece.as_ptr() as usize, piece.len());
        {
            let mut shelf = self.0.shelf.lock();
            let Some(remembered) = shelf.pieces.get_mut(&place) else {
                shelf.remember(Instant::now(), place, piece.clone());
                return None;
            };
            remembered.sent = remembered.sent.saturating_add(1);
            // One makes it, while the others go on copying.
            if remembered.sent != COPIES {
                return remembered.sheet.clone();
            }
        }
        let sheet = Arc::new(Sheet::new(head.unwrap_or_default(), piece, &self.0.room)?);
        if let Some(remembered) = self.0.shelf.lock().pieces.get_mut(&place) {
            remembered.sheet = Some(sheet.clone());
        }
        Some(sheet)
    }

    /// Forgets what is too old; gives the bytes of all sheets there are still.
    pub(super) fn tidy(&self, now: Instant) -> usize {
        self.0.shelf.lock().forget(now);
        MOST_BYTES.saturating_sub(self.0.room.available_permits())
    }
}

impl Shelf {
    fn remember(&mut self, now: Instant, place: Place, piece: Bytes) {
        self.bytes += piece.len();
        self.order.push_back((now, place));
        let new = Remembered {
            piece,
            sent: 1,
            sheet: None,
        };
        self.pieces.insert(place, new);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, place)) = self.order.front().copied() {
            let is_old = now.saturating_duration_since(since) >= LIFE;
            if !is_old && self.order.len() <= MOST && self.bytes <= MOST_BYTES {
                return;
            }
            self.order.pop_front();
            let forgotten = self.pieces.remove(&place);
            self.bytes -= forgotten.map_or(0, |remembered| remembered.piece.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    use super::*;
    use crate::serve::{
        Handler, Peer,
        body::Body,
        door::Door,
        drain::Drain,
        limits::Limits,
        respond::{self, Asked},
        tcp::{self, Options},
    };

    fn piece(len: usize, seed: u8) -> Bytes {
        (0..len)
            .map(|n| (n / 251) as u8 ^ n as u8 ^ seed)
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn what_is_sent_often_gets_a_sheet_and_loses_it_when_nobody_asks() {
        let (sheets, part) = (Sheets::default(), piece(60_000, 1));
        for _ in 1..COPIES {
            assert!(sheets.of(&part, Some(b"head")).is_none());
        }
        let sheet = sheets.of(&part, Some(b"head")).unwrap();
        assert_eq!(sheet.head(), b"head");
        // The same bytes elsewhere are another piece, as are some of these.
        assert!(sheets.of(&Bytes::copy_from_slice(&part), None).is_none());
        assert!(sheets.of(&part.slice(..50_000), None).is_none());
        let again = sheets.of(&part.clone(), Some(b"another head")).unwrap();
        assert!(Arc::ptr_eq(&sheet, &again));
        assert_eq!(sheets.tidy(Instant::now()), 60_004);
        drop((sheet, again));
        assert_eq!(sheets.tidy(Instant::now() + LIFE), 0);
        assert!(sheets.of(&part, Some(b"head")).is_none(), "counted anew");
        assert_eq!(sheets.0.shelf.lock().pieces.len(), 1);
    }

    #[test]
    fn what_is_small_is_never_remembered_and_nothing_beyond_the_bounds() {
        let sheets = Sheets::default();
        let small = piece(LEAST_BYTES - 1, 0);
        for _ in 0..2 * COPIES {
            assert!(sheets.of(&small, None).is_none());
        }
        assert!(sheets.0.shelf.lock().pieces.is_empty());
        for many in [
            (0..2 * MOST).map(|_| piece(LEAST_BYTES, 0)).collect::<Vec<_>>(),
            (0..9).map(|_| piece(MOST_BYTES / 4, 0)).collect(),
        ] {
            for piece in &many {
                assert!((0..COPIES).filter_map(|_| sheets.of(piece, None)).count() == 1);
            }
            let shelf = sheets.0.shelf.lock();
            let held: usize = shelf.pieces.values().map(|remembered| remembered.piece.len()).sum();
            assert_eq!((shelf.pieces.len(), shelf.bytes), (shelf.order.len(), held));
            assert!(shelf.order.len() <= MOST && held <= MOST_BYTES);
            let newest = many.last().unwrap();
            assert!(
                shelf
                    .pieces
                    .values()
                    .any(|remembered| remembered.piece.as_ptr() == newest.as_ptr())
            );
        }
    }

    #[test]
    fn what_slow_clients_hold_is_bounded_when_it_is_forgotten_too() {
        let sheets = Sheets::default();
        let often = |piece: &Bytes| (0..COPIES).find_map(|_| sheets.of(piece, None));
        let quarters: Vec<_> = (0..5).map(|_| piece(MOST_BYTES / 4, 0)).collect();
        let held: Vec<_> = quarters.iter().map(often).collect();
        assert_eq!(held.iter().flatten().count(), 4);
        assert_eq!(sheets.tidy(Instant::now() + LIFE), MOST_BYTES, "forgotten, and held");
        assert!(often(&quarters[4]).is_none());
        drop(held);
        assert_eq!(sheets.tidy(Instant::now() + LIFE), 0);
        assert!(often(&quarters[4]).is_some());
    }

    /// A sheet that no socket takes.
    fn broken(piece: &Bytes) -> Sheet {
        let mut sheet = Sheet::lone(b"", piece);
        sheet.file = File::options().write(true).open("/dev/null").unwrap();
        sheet
    }

    /// Answers everybody with the same part, or with a segment of parts.
    #[derive(Clone)]
    struct Same(Vec<Bytes>);

    impl Handler for Same {
        async fn handle(&self, _: Peer, request: Box<http::request::Parts>) -> http::Response<Body> {
            let asked = Asked {
                method: &request.method,
                headers: &request.headers,
            };
            let body = match request.uri.path() {
                "/segment" => self.0.clone(),
                _ => vec![self.0[0].clone()],
            };
            respond::media(asked, body, "video/mp4".parse().unwrap(), "\"1\"".parse().unwrap())
        }
    }

    /// What a client got that takes little at a time: heads without their date, and bodies.
    async fn watch(at: std::net::SocketAddr, requests: &[&str]) -> Vec<(String, Vec<u8>)> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(at).await.unwrap();
        let asked: String = requests
            .iter()
            .map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .collect();
        client.write_all(asked.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        for _ in requests {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let mut fields = head.split("\r\n");
            let length = fields
                .clone()
                .find_map(|field| field.strip_prefix("content-length: "))
                .unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            client.read_exact(&mut body).await.unwrap();
            answers.push((
                fields.by_ref().filter(|field| !field.starts_with("date")).collect(),
                body,
            ));
        }
        answers
    }

    #[tokio::test]
    async fn everybody_gets_the_same_bytes_with_a_sheet_and_without() {
        let parts: Vec<Bytes> = (0..20)
            .map(|seed| piece(if seed % 3 == 2 { 900 } else { 300_000 }, seed))
            .collect();
        let door = Door::new(Limits::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (drain, handler) = (Drain::new(), Same(parts.clone()));
        tokio::spawn(tcp::serve_through(
            door.clone(),
            listener,
            None,
            Options::default(),
            handler,
            drain,
        ));
        let requests = ["/part", "/segment", "/part"];
        let first = watch(at, &requests).await;
        assert_eq!(first[0].1, parts[0]);
        assert_eq!(first[1].1, parts.concat());
        assert_eq!(first[2], first[0]);
        let all_see_the_same = async || {
            let mut crowd = tokio::task::JoinSet::new();
            for _ in 0..40 {
                crowd.spawn(async move { watch(at, &requests).await });
            }
            while let Some(got) = crowd.join_next().await {
                assert!(got.unwrap() == first);
            }
        };
        all_see_the_same().await;
        let long: usize = parts.iter().map(Bytes::len).filter(|len| *len >= LEAST_BYTES).sum();
        assert!(door.tidy_sheets() >= long, "what was long was in sheets");
        for remembered in door.sheets().0.shelf.lock().pieces.values_mut() {
            remembered.sheet = Some(Arc::new(broken(&remembered.piece)));
        }
        all_see_the_same().await;
    }
}
