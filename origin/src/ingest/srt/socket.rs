//! UDP sockets of a port: datagrams in batches. The port's own takes everybody's; a publish gets one connected to its
//! encoder beside it, on the same port number, which the system prefers for that encoder's datagrams. A flood thus fills the
//! port's queue and nobody else's, and publishes are read on all cores.
//!
//! Before this: the broadcaster. After this: `srt/port.rs` and `srt/connection.rs`.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    time::Instant,
};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::{io::Interest, net::UdpSocket};
use tracing::debug;

/// Datagrams, or trains of them, taken from a socket at a time.
const BATCH: usize = 8;
/// Largest train of datagrams that the kernel puts together.
const TRAIN_BYTES: usize = 64 << 10;
/// Asked of the kernel for everybody's socket, which may give less (net.core.rmem_max) …
const PORT_BUFFER_BYTES: usize = 8 << 20;
/// … and for one publish: half a second at 20 Mbit/s, with what the kernel needs around each datagram.
const DIRECT_BUFFER_BYTES: usize = 2 << 20;

thread_local! {
    /// Where datagrams land before they are told apart: one per thread, however many sockets there are.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * TRAIN_BYTES]);
}

/// A socket of a port.
#[derive(Debug)]
pub(super) struct Socket {
    udp: UdpSocket,
    state: UdpSocketState,
    pub(super) local: SocketAddr,
    /// Whose datagrams alone come here.
    peer: Option<SocketAddr>,
}

impl Socket {
    /// Everybody's. The address must be free, and only this system user can ask for a share of it later.
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        // Not before it is bound: a port that is in use must be noticed.
        SockRef::from(&udp).set_reuse_port(true)?;
        Self::new(udp, None, PORT_BUFFER_BYTES)
    }

    /// One beside this for a single peer. What others send in the moment before it is connected may land there too.
    pub(super) fn direct(&self, peer: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(self.local), Type::DGRAM, Some(Protocol::UDP))?;
        if self.local.is_ipv6() {
            socket.set_only_v6(SockRef::from(&self.udp).only_v6()?)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.local.into())?;
        socket.connect(&peer.into())?;
        Self::new(UdpSocket::from_std(socket.into())?, Some(peer), DIRECT_BUFFER_BYTES)
    }

    fn new(udp: UdpSocket, peer: Option<SocketAddr>, buffer_bytes: usize) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        if let Err(error) = state.set_recv_buffer_size(UdpSockRef::from(&udp), buffer_bytes) {
            debug!(%error, "receive buffer left as it is");
        }
        // A port of its own choice is known by now; a direct socket's address is the one it was routed to.
        let local = udp.local_addr()?;
        Ok(Self {
            udp,
            state,
            local,
            peer,
        })
    }

    /// Waits until there may be something to take. Cancel safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.udp.readable().await
    }

    /// Hands out what is there, up to so many batches.
    pub(super) fn take_batches(
        &self,
        batches: usize,
        mut each: impl FnMut(&[u8], SocketAddr, Instant),
    ) -> io::Result<()> {
        for _ in 0..batches {
            if !self.take_batch(&mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// `false`: nothing more at the moment.
    fn take_batch(&self, each: &mut impl FnMut(&[u8], SocketAddr, Instant)) -> io::Result<bool> {
        LANDING.with_borrow_mut(|landing| {
            let mut metas = [RecvMeta::default(); BATCH];
            let mut slices = landing.chunks_mut(TRAIN_BYTES).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| slices.next().unwrap_or(IoSliceMut::new(&mut [])));
            let received = self.udp.try_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.udp), &mut slices, &mut metas)
            });
            let received = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // Somebody's machine says that nothing listens there: no fault of this port.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for (meta, slice) in metas.iter().zip(&slices).take(received) {
                let train = slice.get(..meta.len).unwrap_or_default();
                for bytes in train.chunks(meta.stride.max(1)) {
                    each(bytes, meta.addr, now);
                }
            }
            Ok(received == BATCH)
        })
    }

    /// A datagram that can't leave now is as good as lost on the way.
    pub(super) fn send(&self, packet: &[u8], peer: SocketAddr) {
        // Past the runtime, which does not know of a new socket yet that it is writable.
        let socket = SockRef::from(&self.udp);
        let sent = match self.peer {
            Some(only) if only == peer => socket.send(packet),
            _ => socket.send_to(packet, &peer.into()),
        };
        if let Err(error) = sent {
            debug!(%error, "packet not sent");
        }
    }
}
