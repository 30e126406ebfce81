//! One UDP port: datagrams in batches, handshakes answered on the spot, everything else handed to its call. It never
//! waits for a call: what a call has no time for is left out, and asked for again.
//!
//! Before this: the broadcaster. After this: `srt/connection.rs`.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket, sync::mpsc};
use tracing::debug;

use super::{
    handshake::{Answer, Knock, Listener},
    wire::{HEADER_BYTES, Kind, Packet},
};
use crate::ingest::Entrance;

/// Datagrams that wait for one call; more are left out.
const INBOX_MAX: usize = 1024;
/// Datagrams, or trains of them, taken from the socket at a time.
const BATCH: usize = 8;
/// Largest train of datagrams that the kernel puts together.
const TRAIN_BYTES: usize = 64 << 10;
/// Asked of the kernel, which may give less (net.core.rmem_max).
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

thread_local! {
    /// Where datagrams land before they are told apart: one per thread, however many ports there are.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * TRAIN_BYTES]);
}

/// A datagram for a call.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) bytes: BytesMut,
    pub(super) at: Instant,
}

/// One port.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    pub(super) listener: Listener,
    pub(super) entrance: Entrance,
    pub(super) local: SocketAddr,
    calls: Mutex<Calls>,
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
    pub(super) fn new(socket: UdpSocket, listener: Listener, entrance: Entrance) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        if let Err(error) = state.set_recv_buffer_size(UdpSockRef::from(&socket), RECEIVE_BUFFER_BYTES) {
            debug!(%error, "receive buffer left as it is");
        }
        Ok(Arc::new(Self {
            local: socket.local_addr()?,
            socket,
            state,
            listener,
            entrance,
            calls: Mutex::default(),
        }))
    }

    /// Waits for datagrams and hands them out. Cancel safe.
    pub(super) async fn hear(&self) -> io::Result<Heard> {
        loop {
            self.socket.readable().await?;
            match self.take_batch() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Somebody's machine says that nothing listens there: no fault of this port.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                heard => return heard,
            }
        }
    }

    fn take_batch(&self) -> io::Result<Heard> {
        LANDING.with_borrow_mut(|landing| {
            let mut metas = [RecvMeta::default(); BATCH];
            let mut slices = landing.chunks_mut(TRAIN_BYTES).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| slices.next().unwrap_or(IoSliceMut::new(&mut [])));
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
            })?;
            let now = Instant::now();
            let mut heard = Heard::default();
            let calls = self.calls.lock();
            for (meta, slice) in metas.iter().zip(&slices).take(received) {
                let train = slice.get(..meta.len).unwrap_or_default();
                for bytes in train.chunks(meta.stride.max(1)) {
                    self.dispatch(&calls, bytes, meta.addr, now, &mut heard);
                }
            }
            Ok(heard)
        })
    }

    fn dispatch(&self, calls: &Calls, bytes: &[u8], peer: SocketAddr, now: Instant, heard: &mut Heard) {
        let Some(destination) = bytes.get(HEADER_BYTES - 4..).and_then(|rest| rest.first_chunk()) else {
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
        let destination = u32::from_be_bytes(*destination);
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

    /// A datagram that can't leave now is as good as lost on the way.
    pub(super) fn send(&self, packet: &[u8], peer: SocketAddr) {
        if let Err(error) = self.socket.try_send_to(packet, peer) {
            debug!(%error, "packet not sent");
        }
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
