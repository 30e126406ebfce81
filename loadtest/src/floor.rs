//! The floor: a server that gives the same content as [`crate::origin`] with as little work as the system allows.
//!
//! One thread, no cache, no upstream, responses laid out once per part, waiting viewers written to in one sweep. What an
//! edge needs beyond this is its own doing: "close to the limit" becomes a ratio that can be measured.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::LocalSet,
};
use tokio_util::sync::CancellationToken;
use weir_shared::hls::{
    delta,
    position::{Verdict, Want, answer},
    reload::{Reload, Skip},
    write,
};

use crate::{
    clock,
    content::{Content, Shape},
};

mod answer;

use answer::{media, playlist, status};

/// Longest request head, in bytes.
const MAX_REQUEST_BYTES: usize = 8192;
/// Answers that one connection may have waiting for its socket.
const MAX_QUEUED: usize = 64;
/// Parts whose completion is remembered.
const REMEMBERED_PARTS: usize = 64;

/// Serves until `stop`; `bound` is told the address. Blocks the calling thread.
pub fn run(
    listen: SocketAddr,
    shape: Shape,
    stop: CancellationToken,
    bound: impl FnOnce(SocketAddr),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(listen).await?;
        bound(listener.local_addr()?);
        let phases = Content::new(shape, clock::now()).in_phases();
        let hubs: Rc<[Hub]> = phases.into_iter().map(Hub::new).collect();
        for phase in 0..hubs.len() {
            let hubs = hubs.clone();
            tokio::task::spawn_local(async move {
                if let Some(hub) = hubs.get(phase) {
                    hub.tick().await;
                }
            });
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return Ok(()),
            };
            if let Ok((stream, _)) = accepted {
                let _ = stream.set_nodelay(true);
                let (hubs, connection) = (hubs.clone(), Rc::new(Connection::new(stream)));
                tokio::task::spawn_local(async move {
                    let _ = connection.serve(&hubs).await;
                    connection.gone.set(true);
                });
            }
        }
    })
}

/// What all connections to the streams of one phase share.
struct Hub {
    content: Content,
    parts: Cell<u64>,
    /// When the latest parts were complete, the newest last.
    completed: RefCell<VecDeque<crate::moment::Moment>>,
    waiting: RefCell<Vec<Waiting>>,
    /// Laid-out playlist answers of the present state.
    playlists: RefCell<Vec<(PlaylistForm, Bytes)>>,
    /// Laid-out answers for the newest part, by stream and rendition.
    newest: RefCell<HashMap<(u32, usize), [Bytes; 2]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlaylistForm {
    rendition: usize,
    delta: bool,
    gzip: bool,
    blocked: bool,
}

struct Waiting {
    connection: Rc<Connection>,
    what: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    Playlist {
        rendition: usize,
        reload: Reload,
        gzip: bool,
    },
    Part {
        stream: u32,
        rendition: usize,
        number: u64,
    },
}

struct Connection {
    stream: TcpStream,
    out: RefCell<VecDeque<Bytes>>,
    blocked: Notify,
    gone: Cell<bool>,
}

impl Hub {
    fn new(content: Content) -> Self {
        let parts = content.parts_at(clock::now());
        Self {
            content,
            parts: Cell::new(parts),
            completed: RefCell::default(),
            waiting: RefCell::default(),
            playlists: RefCell::default(),
            newest: RefCell::default(),
        }
    }

    async fn tick(&self) {
        loop {
            tokio::time::sleep_until(clock::instant(self.content.completes(self.parts.get()))).await;
            let now = clock::now();
            self.parts.set(self.parts.get() + 1);
            self.playlists.borrow_mut().clear();
            self.newest.borrow_mut().clear();
            let mut completed = self.completed.borrow_mut();
            completed.push_back(now);
            if completed.len() > REMEMBERED_PARTS {
                completed.pop_front();
            }
            drop(completed);
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            for one in waiting {
                if !one.connection.gone.get() {
                    self.answer(&one.connection, one.what);
                }
            }
        }
    }

    /// Answers now, or when it is time.
    fn answer(&self, connection: &Rc<Connection>, what: Asked) {
        let parts = self.parts.get();
        let edge = self.content.edge(parts);
        match what {
            Asked::Playlist { reload, .. } if answer(&edge, reload.want) == Verdict::TooFarAhead => {
                connection.push([status("400 Bad Request")]);
            }
            Asked::Playlist { reload, .. } if answer(&edge, reload.want) == Verdict::Wait => {
                self.wait(connection, what)
            }
            Asked::Playlist {
                rendition,
                reload,
                gzip,
            } => {
                let delta = reload.skip == Skip::Yes;
                connection.push([self.playlist(PlaylistForm {
                    rendition,
                    delta,
                    gzip,
                    blocked: reload.want != Want::Now,
                })]);
            }
            Asked::Part { number, .. } if number == parts => self.wait(connection, what),
            Asked::Part { number, .. } if !self.content.held(number, parts) => {
                connection.push([status("404 Not Found")]);
            }
            Asked::Part {
                stream,
                rendition,
                number,
            } => {
                if number + 1 == parts {
                    let mut newest = self.newest.borrow_mut();
                    let laid_out = newest
                        .entry((stream, rendition))
                        .or_insert_with(|| self.part(stream, rendition, number));
                    let answer = laid_out.clone();
                    drop(newest);
                    return connection.push(answer);
                }
                connection.push(self.part(stream, rendition, number));
            }
        }
    }

    /// The laid-out answer for a part that is there.
    fn part(&self, stream: u32, rendition: usize, number: u64) -> [Bytes; 2] {
        let age = usize::try_from(self.parts.get().saturating_sub(number)).unwrap_or(usize::MAX);
        let completed = self.completed.borrow();
        let at = completed
            .len()
            .checked_sub(age)
            .and_then(|n| completed.get(n))
            .copied()
            .unwrap_or(self.content.completes(number));
        media(number, self.content.part(stream, rendition, number, at))
    }

    fn wait(&self, connection: &Rc<Connection>, what: Asked) {
        let connection = connection.clone();
        self.waiting.borrow_mut().push(Waiting { connection, what });
    }

    fn playlist(&self, form: PlaylistForm) -> Bytes {
        let mut made = self.playlists.borrow_mut();
        if let Some((_, text)) = made.iter().find(|(known, _)| *known == form) {
            return text.clone();
        }
        let Some(name) = self.content.renditions().get(form.rendition) else {
            return status("404 Not Found");
        };
        let full = self.content.playlist(name, self.parts.get());
        let text = write::write(&if form.delta { delta::delta(&full) } else { full });
        let kept_seconds = match form.blocked {
            true => 6 * self.content.shape.target_duration_seconds(),
            false => 0,
        };
        let answer = playlist(&text, form.gzip, kept_seconds);
        made.push((form, answer.clone()));
        answer
    }

    fn request(
        &self,
        connection: &Rc<Connection>,
        stream: u32,
        rest: &str,
        query: Option<&str>,
        gzip: bool,
    ) -> Option<()> {
        let rendition = |name: &str| self.content.renditions().iter().position(|r| r.as_str() == name);
        if rest == "index.m3u8" {
            connection.push([playlist(&self.content.multivariant("d/"), gzip, 1)]);
            return Some(());
        }
        let mut steps = rest.strip_prefix("d/")?.split('/');
        let first = steps.next()?;
        if let Some(name) = first.strip_suffix(".m3u8") {
            let reload = Reload::parse(query).unwrap_or(Reload {
                want: Want::Now,
                skip: Skip::No,
            });
            self.answer(
                connection,
                Asked::Playlist {
                    rendition: rendition(name)?,
                    reload,
                    gzip,
                },
            );
            return Some(());
        }
        let rendition = rendition(steps.next()?)?;
        let file = steps.next()?;
        if file.ends_with(".mp4") {
            connection.push(media(0, vec![self.content.init()]));
            return Some(());
        }
        let number = file.strip_prefix('p')?.strip_suffix(".m4s")?.parse().ok()?;
        self.answer(
            connection,
            Asked::Part {
                stream,
                rendition,
                number,
            },
        );
        Some(())
    }
}

/// `/app/s<n>/index.m3u8`, `/app/s<n>/d/<rendition>.m3u8`, `/app/s<n>/d/<epoch>/<rendition>/<object>`.
fn route(hubs: &[Hub], connection: &Rc<Connection>, target: &str, gzip: bool) {
    let routed = || {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let (key, rest) = path.strip_prefix("/app/")?.split_once('/')?;
        let content = &hubs.first()?.content;
        let stream = content.stream(key)?;
        let hub = hubs.get(content.phase_of(stream))?;
        hub.request(connection, stream, rest, query, gzip)
    };
    if routed().is_none() {
        connection.push([status("404 Not Found")]);
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            out: RefCell::default(),
            blocked: Notify::new(),
            gone: Cell::new(false),
        }
    }

    async fn serve(self: &Rc<Self>, hubs: &[Hub]) -> io::Result<()> {
        let mut request = Vec::with_capacity(512);
        let mut piece = [0; 2048];
        loop {
            tokio::select! {
                ready = self.stream.readable() => ready?,
                () = self.blocked.notified() => {
                    self.stream.writable().await?;
                    self.flush();
                    continue;
                }
            }
            let got = match self.stream.try_read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            request.extend_from_slice(piece.get(..got).unwrap_or(&[]));
            while let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(request.get(..end).unwrap_or(&[])).into_owned();
                request.drain(..end + 4);
                match head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
                    Some(target) => {
                        let gzip = head.to_ascii_lowercase().contains("\naccept-encoding: gzip");
                        route(hubs, self, target, gzip);
                    }
                    None => return Ok(()),
                }
            }
            if request.len() > MAX_REQUEST_BYTES || self.out.borrow().len() > MAX_QUEUED {
                return Ok(());
            }
        }
    }

    fn push(&self, pieces: impl IntoIterator<Item = Bytes>) {
        self.out.borrow_mut().extend(pieces);
        self.flush();
    }

    /// Writes what the socket takes.
    fn flush(&self) {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            let slices: Vec<_> = out.iter().take(8).map(|piece| IoSlice::new(piece)).collect();
            match self.stream.try_write_vectored(&slices) {
                Ok(mut written) => {
                    while let Some(first) = out.front_mut() {
                        if written < first.len() {
                            let _ = first.split_to(written);
                            break;
                        }
                        written -= first.len();
                        out.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.blocked.notify_one(),
                Err(_) => return out.clear(),
            }
        }
    }
}
