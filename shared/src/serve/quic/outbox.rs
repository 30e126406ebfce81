//! What a connection sends in one turn leaves in as few system calls as the kernel allows.
//!
//! quinn hands over ten datagrams at a time. A part has some forty, and each call costs as much as copying the part: here those of one
//! turn (`turns.rs`) are collected, and the kernel cuts up all of them at once (generic segmentation offload). On the wire nothing differs.
//!
//! Before this: quinn, which takes [`Outbox`] for its socket. After this: quinn's own socket.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

/// The most that IPv4 carries as one datagram before it is cut up.
const MAX_BATCH: usize = 65_507;

thread_local! {
    /// Open while a connection has its turn on this thread.
    static OPEN: RefCell<Option<Batch>> = const { RefCell::new(None) };
    /// What the next turn's batch is written to.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lets `turn` send; the datagrams leave at its end. Gives back those for which there was no room.
pub(super) fn collect<T>(turn: impl FnOnce() -> T) -> (T, Option<Unsent>) {
    /// Closes the batch even if the turn panics.
    struct Closing;
    impl Drop for Closing {
        fn drop(&mut self) {
            OPEN.take();
        }
    }

    let batch = Batch {
        bytes: SPARE.take(),
        ..Batch::default()
    };
    OPEN.set(Some(batch));
    let closing = Closing;
    let result = turn();
    let batch = OPEN.take();
    drop(closing);
    let Some(mut batch) = batch else {
        return (result, None);
    };
    if is_blocked(&batch.flush())
        && let Some(socket) = batch.socket.clone()
    {
        let poller = socket.create_io_poller();
        return (result, Some(Unsent { batch, poller }));
    }
    SPARE.set(batch.bytes);
    (result, None)
}

/// Datagrams to one client, all but the last of one size.
#[derive(Debug, Default)]
struct Batch {
    socket: Option<Arc<dyn AsyncUdpSocket>>,
    way: Option<Way>,
    /// Bytes of each datagram, if quinn has said so. Behind a single one nothing follows: it may be a probe for a larger path, and the
    /// kernel's refusal to cut into pieces of that size would end segmentation for good.
    segment: Option<usize>,
    bytes: Vec<u8>,
}

/// Where datagrams go, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
}

impl Batch {
    /// Takes datagrams, or says that the socket has no room for those before them.
    fn add(&mut self, socket: &Arc<dyn AsyncUdpSocket>, transmit: &Transmit<'_>) -> io::Result<()> {
        let way = Way {
            destination: transmit.destination,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
        };
        if !self.has_room_for(way, transmit, socket.max_transmit_segments()) {
            self.flush()?;
            self.socket = Some(socket.clone());
            self.way = Some(way);
            self.segment = transmit.segment_size;
        }
        self.bytes.extend_from_slice(transmit.contents);
        Ok(())
    }

    /// Whether the datagrams can follow those that are there: only the last one may be shorter than the others, none longer.
    fn has_room_for(&self, way: Way, transmit: &Transmit<'_>, max_segments: usize) -> bool {
        let Some(segment) = self.segment else {
            return false;
        };
        let fits = match transmit.segment_size {
            Some(other) => other == segment,
            None => transmit.contents.len() <= segment,
        };
        let length = self.bytes.len() + transmit.contents.len();
        !self.bytes.is_empty()
            && self.way == Some(way)
            && fits
            && self.bytes.len().is_multiple_of(segment)
            && length <= MAX_BATCH.min(max_segments * segment)
    }

    /// Sends what is there; keeps it if the socket has no room.
    fn flush(&mut self) -> io::Result<()> {
        let (Some(socket), Some(way), false) = (&self.socket, self.way, self.bytes.is_empty()) else {
            return Ok(());
        };
        let sent = socket.try_send(&Transmit {
            destination: way.destination,
            ecn: way.ecn,
            contents: &self.bytes,
            segment_size: self.segment,
            src_ip: way.src_ip,
        });
        if !is_blocked(&sent) {
            self.bytes.clear();
        }
        sent
    }
}

/// Datagrams that wait for the socket.
#[derive(Debug)]
pub(super) struct Unsent {
    batch: Batch,
    poller: Pin<Box<dyn UdpPoller>>,
}

impl Unsent {
    /// Sends them as soon as there is room. An error loses them, as any network may: QUIC sends them again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.poller.as_mut().poll_writable(cx)).is_err() {
                return Poll::Ready(());
            }
            if !is_blocked(&self.batch.flush()) {
                return Poll::Ready(());
            }
        }
    }
}

fn is_blocked(sent: &io::Result<()>) -> bool {
    sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// A socket that leaves what a turn sends to the turn's end.
#[derive(Debug)]
pub(super) struct Outbox(Arc<dyn AsyncUdpSocket>);

impl Outbox {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self(socket)
    }
}

impl AsyncUdpSocket for Outbox {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        OPEN.with_borrow_mut(|open| match open {
            Some(batch) => batch.add(&self.0, transmit),
            None => self.0.try_send(transmit),
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::Mutex;

    use super::*;

    /// A socket that notes what it was given: to which port, how much, in datagrams of which size.
    #[derive(Debug, Default)]
    pub(in super::super) struct Wire {
        pub(in super::super) sent: Mutex<Vec<(u16, usize, Option<usize>)>>,
        pub(in super::super) is_full: AtomicBool,
    }

    impl AsyncUdpSocket for Wire {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Room(self))
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            if self.is_full.load(Ordering::Relaxed) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let port = transmit.destination.port();
            self.sent
                .lock()
                .push((port, transmit.contents.len(), transmit.segment_size));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(to(443))
        }

        fn max_transmit_segments(&self) -> usize {
            64
        }
    }

    #[derive(Debug)]
    struct Room(Arc<Wire>);

    impl UdpPoller for Room {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.0.is_full.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            }
        }
    }

    fn to(port: u16) -> SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, port).into()
    }

    pub(in super::super) fn datagrams(port: u16, bytes: &[u8], segment: Option<usize>) -> Transmit<'_> {
        Transmit {
            destination: to(port),
            ecn: None,
            contents: bytes,
            segment_size: segment,
            src_ip: None,
        }
    }

    #[test]
    fn a_part_leaves_at_once_and_what_does_not_fit_behind_it_leaves_after_it() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let ten = vec![1; 12_000];
        let (sent_meanwhile, unsent) = collect(|| {
            for _ in 0..3 {
                outbox.try_send(&datagrams(1, &ten, Some(1_200))).unwrap();
            }
            outbox.try_send(&datagrams(1, &ten[..700], None)).unwrap();
            // Behind a short one there is no room, and a probe for a larger path is longer than the others.
            outbox.try_send(&datagrams(1, &ten[..1_200], None)).unwrap();
            outbox.try_send(&datagrams(1, &ten[..1_452], None)).unwrap();
            outbox.try_send(&datagrams(2, &ten[..1_452], None)).unwrap();
            wire.sent.lock().len()
        });
        assert!(unsent.is_none());
        assert_eq!(sent_meanwhile, 3, "the last are sent at the turn's end");
        assert_eq!(
            *wire.sent.lock(),
            [
                (1, 36_700, Some(1_200)),
                (1, 1_200, None),
                (1, 1_452, None),
                (2, 1_452, None)
            ]
        );
    }

    #[test]
    fn nothing_follows_a_probe_for_a_larger_path() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let bytes = [1; 1_452];
        collect(|| {
            outbox.try_send(&datagrams(1, &bytes, None)).unwrap();
            outbox.try_send(&datagrams(1, &bytes[..1_200], None)).unwrap();
        });
        assert_eq!(*wire.sent.lock(), [(1, 1_452, None), (1, 1_200, None)]);
    }

    #[test]
    fn no_batch_is_larger_than_a_datagram_may_be() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let ten = vec![1; 14_520];
        collect(|| (0..9).for_each(|_| outbox.try_send(&datagrams(1, &ten, Some(1_452))).unwrap()));
        let sent = wire.sent.lock();
        assert_eq!(sent.iter().map(|(_, length, _)| length).sum::<usize>(), 9 * 14_520);
        assert!(sent.iter().all(|(_, length, _)| *length <= MAX_BATCH));
        assert!(sent.len() <= 3, "{sent:?}");
    }

    #[test]
    fn what_is_sent_outside_a_turn_leaves_as_it_is() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let bytes = [1; 1_200];
        outbox.try_send(&datagrams(1, &bytes, None)).unwrap();
        outbox.try_send(&datagrams(1, &bytes, None)).unwrap();
        assert_eq!(wire.sent.lock().len(), 2);
    }

    #[test]
    fn what_finds_no_room_waits_and_is_not_lost() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let bytes = [1; 1_200];
        wire.is_full.store(true, Ordering::Relaxed);
        let (refused, unsent) = collect(|| {
            outbox.try_send(&datagrams(1, &bytes, None)).unwrap();
            outbox.try_send(&datagrams(2, &bytes, None)).unwrap_err()
        });
        // quinn keeps the second and waits itself.
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        let mut unsent = unsent.expect("there was no room");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(unsent.poll(&mut cx).is_pending());
        wire.is_full.store(false, Ordering::Relaxed);
        assert!(unsent.poll(&mut cx).is_ready());
        assert_eq!(*wire.sent.lock(), [(1, 1_200, None)]);
    }

    #[test]
    fn a_turn_that_panics_leaves_nothing_to_the_next() {
        let wire = Arc::new(Wire::default());
        let outbox = Outbox::new(wire.clone());
        let bytes = [1; 1_200];
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            collect(|| {
                outbox.try_send(&datagrams(1, &bytes, None)).unwrap();
                panic!("a request's fault");
            })
        }));
        assert!(panicked.is_err());
        outbox.try_send(&datagrams(2, &bytes, None)).unwrap();
        assert_eq!(*wire.sent.lock(), [(2, 1_200, None)]);
    }
}
