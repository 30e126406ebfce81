//! One UDP port: handshakes answered on the spot, everything else handed to its call. It never waits for a call: what a
//! call has no time for is left out, and asked for again.
//!
//! Before this: `srt/socket.rs`. After this: `srt/connection.rs`.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    handshake::{Answer, Knock, Listener},
    socket::Socket,
    wire::{Kind, Packet, destination},
};
use crate::ingest::Entrance;

/// Datagrams that wait for one call; more are left out.
const INBOX_MAX: usize = 1024;
/// Batches that a port takes before others get their turn: many enough for a flood, few enough to be short.
const TURN_BATCHES: usize = 16;
/// Publishes of one port with a socket of their own; the next ones share the port's. Kernels before 6.13 look through all
/// sockets of a port for every datagram.
const DIRECT_MAX: usize = 512;

/// A datagram for a call.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) bytes: BytesMut,
    pub(super) at: Instant,
}

/// One port.
pub(super) struct Port {
    socket: Socket,
    pub(super) listener: Listener,
    pub(super) entrance: Entrance,
    calls: Mutex<Calls>,
    directs: AtomicUsize,
}

/// Who is called what. Bounded by the lobby.
#[derive(Debug, Default)]
struct Calls {
    by_socket: HashMap<u32, Call>,
    by_caller: HashMap<Caller, u32>,
}

/// A caller's address and socket.
type Caller = (SocketAddr, u32);

#[derive(Debug)]
struct Call {
    caller: Caller,
    inbox: mpsc::Sender<Datagram>,
}

/// A call's number on its port. Dropping it frees the number.
pub(super) struct Registered {
    port: Arc<Port>,
    pub(super) socket: u32,
}

/// A socket for one publish alone. Dropping it makes room for another's.
pub(super) struct Direct {
    port: Arc<Port>,
    pub(super) socket: Socket,
}

/// What a batch of datagrams amounts to, for the metrics and the server.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// New callers with good cookies.
    pub(super) knocks: Vec<Knock>,
    pub(super) inductions: u64,
    pub(super) rejected: Vec<super::reject::Reject>,
    pub(super) ignored: Vec<super::handshake::Ignored>,
    /// For no session.
    pub(super) unknown: u64,
    /// For a session whose inbox is full.
    pub(super) overrun: u64,
}

impl Port {
    pub(super) fn new(socket: Socket, listener: Listener, entrance: Entrance) -> Arc<Self> {
        Arc::new(Self {
            socket,
            listener,
            entrance,
            calls: Mutex::default(),
            directs: AtomicUsize::new(0),
        })
    }

    pub(super) const fn local(&self) -> SocketAddr {
        self.socket.local
    }

    /// Waits for datagrams and hands them out. Cancel safe.
    pub(super) async fn hear(&self) -> io::Result<Heard> {
        self.socket.readable().await?;
        let mut heard = Heard::default();
        let calls = self.calls.lock();
        let each = |bytes: &[u8], peer, at| self.dispatch(&calls, bytes, peer, at, &mut heard);
        self.socket.take_batches(TURN_BATCHES, each)?;
        Ok(heard)
    }

    /// A datagram that came to a direct socket and is not for its call.
    pub(super) fn pass_on(&self, bytes: &[u8], peer: SocketAddr, at: Instant, heard: &mut Heard) {
        self.dispatch(&self.calls.lock(), bytes, peer, at, heard);
    }

    fn dispatch(&self, calls: &Calls, bytes: &[u8], peer: SocketAddr, now: Instant, heard: &mut Heard) {
        let Some(destination) = destination(bytes) else {
            heard.unknown += 1;
            return;
        };
        let hand_on = |call: Option<&Call>, heard: &mut Heard| {
            let Some(call) = call.filter(|call| call.caller.0 == peer) else {
                heard.unknown += 1;
                return;
            };
            let datagram = Datagram {
                bytes: BytesMut::from(bytes),
                at: now,
            };
            heard.overrun += u64::from(call.inbox.try_send(datagram).is_err());
        };
        if destination != 0 {
            return hand_on(calls.by_socket.get(&destination), heard);
        }
        let Ok(Packet {
            timestamp,
            kind: Kind::Handshake(content),
            ..
        }) = Packet::parse(bytes)
        else {
            heard.unknown += 1;
            return;
        };
        match self.listener.hear(peer, timestamp, content, now) {
            Answer::Induction(answer) => {
                heard.inductions += 1;
                self.send(&answer, peer);
            }
            Answer::Rejected { answer, reject } => {
                heard.rejected.push(reject);
                self.send(&answer, peer);
            }
            Answer::Ignored(why) => heard.ignored.push(why),
            Answer::Knock(knock) => match calls.by_caller.get(&(peer, knock.socket())) {
                Some(socket) => hand_on(calls.by_socket.get(socket), heard),
                None => heard.knocks.push(*knock),
            },
        }
    }

    /// A number for a new call. `None`: it has one already.
    pub(super) fn register(self: &Arc<Self>, knock: &Knock) -> Option<(Registered, mpsc::Receiver<Datagram>)> {
        let caller = (knock.peer, knock.socket());
        let mut calls = self.calls.lock();
        if calls.by_caller.contains_key(&caller) {
            return None;
        }
        let socket = loop {
            let socket = rand::random::<u32>() & 0x3fff_ffff;
            if socket != 0 && !calls.by_socket.contains_key(&socket) {
                break socket;
            }
        };
        let (inbox, datagrams) = mpsc::channel(INBOX_MAX);
        calls.by_caller.insert(caller, socket);
        calls.by_socket.insert(socket, Call { caller, inbox });
        let port = self.clone();
        Some((Registered { port, socket }, datagrams))
    }

    /// Everybody's inbox is closed: the port is gone.
    pub(super) fn hang_up(&self) {
        *self.calls.lock() = Calls::default();
    }

    /// A socket for this peer's publish alone. `None`: there are enough, or the system has none; the port's serves it.
    pub(super) fn direct(self: &Arc<Self>, peer: SocketAddr) -> Option<Direct> {
        let taken = |taken| (taken < DIRECT_MAX).then_some(taken + 1);
        self.directs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .ok()?;
        match self.socket.direct(peer) {
            Ok(socket) => Some(Direct {
                port: self.clone(),
                socket,
            }),
            Err(error) => {
                self.directs.fetch_sub(1, Ordering::Relaxed);
                debug!(%error, "no socket of its own for a publish");
                None
            }
        }
    }

    pub(super) fn send(&self, packet: &[u8], peer: SocketAddr) {
        self.socket.send(packet, peer);
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.port.directs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut calls = self.port.calls.lock();
        if let Some(call) = calls.by_socket.remove(&self.socket) {
            calls.by_caller.remove(&call.caller);
        }
    }
}
