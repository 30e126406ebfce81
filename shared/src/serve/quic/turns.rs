//! A QUIC connection and the requests on it take turns in one task.
//!
//! quinn gives a connection's packets ("driver") a task of their own. Then what a request writes wakes the driver, which sends twenty
//! datagrams and lets all others go first; a part of forty leaves in three turns, and a thousand viewers have theirs at the end of the third.
//! Here whoever is woken goes on until both have nothing left to do, and all they sent leaves at once (`outbox.rs`).
//!
//! Before this: `quic.rs`. After this: quinn's driver on one hand, the connection's requests on the other.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::UdpSocket,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use futures_util::task::AtomicWaker;
use quinn::{AsyncTimer, AsyncUdpSocket, Connecting, ConnectionError, Incoming, TokioRuntime};

use super::outbox::{self, Outbox, Unsent};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Times either is gone on with before others have their turn: enough for two parts.
const ROUNDS: usize = 8;

const DRIVER: u8 = 1;
const REQUESTS: u8 = 2;
/// Having their turn: nobody needs to be woken.
const BUSY: u8 = 4;

thread_local! {
    /// Where the driver of the connection that is being accepted on this thread is put.
    static ACCEPTING: RefCell<Option<Driver>> = const { RefCell::new(None) };
}

/// Tokio for quinn, except that a connection's driver is left to whoever [accepts](accept) it, and that the socket is an [`Outbox`].
#[derive(Debug)]
pub(super) struct Runtime;

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, work: Work) {
        ACCEPTING.with_borrow_mut(|accepting| match accepting {
            Some(driver) => driver.0 = Some(work),
            None => {
                tokio::spawn(work);
            }
        });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Outbox::new(TokioRuntime.wrap_udp_socket(socket)?)))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// Begins the handshake.
pub(super) fn accept(incoming: Incoming) -> Result<(Connecting, Driver), ConnectionError> {
    ACCEPTING.set(Some(Driver(None)));
    let connecting = incoming.accept();
    let driver = ACCEPTING.take().unwrap_or(Driver(None));
    Ok((connecting?, driver))
}

/// What sends and takes a connection's packets. Dropped before it has ended, it goes on by itself: a client is still told that the
/// connection is closed.
pub(super) struct Driver(Option<Work>);

impl Driver {
    /// Goes on with the connection and its requests until those have ended.
    pub(super) async fn along<T>(self, requests: impl Future<Output = T>) -> T {
        let mut requests = pin!(requests);
        let mut turns = Turns::new(self);
        poll_fn(|cx| turns.poll(requests.as_mut(), cx)).await
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let (Some(work), Ok(tokio)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            tokio.spawn(work);
        }
    }
}

struct Turns {
    driver: Driver,
    signals: Arc<Signals>,
    to_driver: Waker,
    to_requests: Waker,
    /// 64 KiB at most. What is left when the requests have ended is lost, as any network may lose it: the driver sends it again.
    unsent: Option<Unsent>,
}

impl Turns {
    fn new(driver: Driver) -> Self {
        let signals = Arc::new(Signals {
            woken: AtomicU8::new(DRIVER | REQUESTS),
            task: AtomicWaker::new(),
        });
        let signal = |whom| Waker::from(Arc::new(Signal(signals.clone(), whom)));
        Self {
            driver,
            to_driver: signal(DRIVER),
            to_requests: signal(REQUESTS),
            signals,
            unsent: None,
        }
    }

    fn poll<T>(&mut self, requests: Pin<&mut impl Future<Output = T>>, cx: &mut Context<'_>) -> Poll<T> {
        self.signals.begin(cx);
        let is_blocked = self.unsent.as_mut().is_some_and(|unsent| unsent.poll(cx).is_pending());
        // Requests go on meanwhile: they may have to end the connection.
        let whom = if is_blocked { REQUESTS } else { DRIVER | REQUESTS };
        let (result, unsent) = outbox::collect(|| self.turn(whom, requests));
        if !is_blocked {
            self.unsent = unsent;
            if self.unsent.is_some() {
                // The next turn begins by waiting for room.
                cx.waker().wake_by_ref();
            }
        }
        self.signals.end(whom, cx);
        result
    }

    fn turn<T>(&mut self, whom: u8, mut requests: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        for _ in 0..ROUNDS {
            let woken = self.signals.take(whom);
            if woken & REQUESTS != 0 {
                let result = requests.as_mut().poll(&mut Context::from_waker(&self.to_requests));
                if result.is_ready() {
                    return result;
                }
            }
            if woken & DRIVER != 0
                && let Some(driver) = &mut self.driver.0
                && driver
                    .as_mut()
                    .poll(&mut Context::from_waker(&self.to_driver))
                    .is_ready()
            {
                self.driver.0 = None;
            }
            if woken == 0 {
                break;
            }
        }
        Poll::Pending
    }
}

/// Who has been woken.
struct Signals {
    woken: AtomicU8,
    task: AtomicWaker,
}

impl Signals {
    fn begin(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
        self.woken.fetch_or(BUSY, Ordering::SeqCst);
    }

    /// Who of these has been woken since the last time.
    fn take(&self, whom: u8) -> u8 {
        self.woken.fetch_and(!whom, Ordering::SeqCst) & whom
    }

    /// Whoever of these was woken during the turn and hasn't been gone on with has another.
    fn end(&self, whom: u8, cx: &Context<'_>) {
        if self.woken.fetch_and(!BUSY, Ordering::SeqCst) & whom != 0 {
            cx.waker().wake_by_ref();
        }
    }

    fn wake(&self, whom: u8) {
        if self.woken.fetch_or(whom, Ordering::SeqCst) & (whom | BUSY) == 0 {
            self.task.wake();
        }
    }
}

struct Signal(Arc<Signals>, u8);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.wake(self.1);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake(self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{Notify, oneshot};

    use super::{
        super::outbox::tests::{Wire, datagrams},
        *,
    };

    /// Counts how often the task was woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn driver(work: impl Future<Output = ()> + Send + 'static) -> Driver {
        Driver(Some(Box::pin(work)))
    }

    /// Wakes itself this many times.
    async fn wakes_itself(times: usize, polls: Arc<AtomicUsize>) {
        let mut left = times;
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::SeqCst);
            if left > 0 {
                left -= 1;
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    #[tokio::test]
    async fn a_driver_with_more_to_send_goes_on_in_the_same_turn() {
        let (bell, polls) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
        let waker = Waker::from(bell.clone());
        let mut turns = Turns::new(driver(wakes_itself(2, polls.clone())));
        let mut requests = pin!(std::future::pending::<()>());
        assert!(
            turns
                .poll(requests.as_mut(), &mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(polls.load(Ordering::SeqCst), 3);
        assert_eq!(bell.0.load(Ordering::SeqCst), 0, "nobody has to be woken for that");
    }

    #[tokio::test]
    async fn a_driver_that_never_ends_lets_others_go_first() {
        let (bell, polls) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
        let waker = Waker::from(bell.clone());
        let mut turns = Turns::new(driver(wakes_itself(usize::MAX, polls.clone())));
        let mut requests = pin!(std::future::pending::<()>());
        assert!(
            turns
                .poll(requests.as_mut(), &mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(polls.load(Ordering::SeqCst), ROUNDS);
        assert_eq!(bell.0.load(Ordering::SeqCst), 1, "it has its turn again");
    }

    #[tokio::test]
    async fn each_wakes_the_other_and_outsiders_wake_the_task_once() {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut cx = Context::from_waker(&waker);
        let (news, written) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut turns = Turns::new(driver({
            let (written, sent) = (written.clone(), sent.clone());
            async move {
                loop {
                    written.notified().await;
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
        let mut requests = pin!({
            let news = news.clone();
            async move {
                loop {
                    news.notified().await;
                    written.notify_one();
                }
            }
        });
        let _: Poll<()> = turns.poll(requests.as_mut(), &mut cx);
        assert_eq!((bell.0.load(Ordering::SeqCst), sent.load(Ordering::SeqCst)), (0, 0));
        news.notify_one();
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        let _: Poll<()> = turns.poll(requests.as_mut(), &mut cx);
        assert_eq!(
            sent.load(Ordering::SeqCst),
            1,
            "what was written has been sent in that turn"
        );
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_network_that_takes_nothing_keeps_no_connection_from_ending() {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut cx = Context::from_waker(&waker);
        let wire = Arc::new(Wire::default());
        wire.is_full.store(true, Ordering::SeqCst);
        let (overdue, outbox) = (Arc::new(Notify::new()), Outbox::new(wire.clone()));
        let mut turns = Turns::new(driver(async move {
            outbox.try_send(&datagrams(1, &[1; 1_200], None)).unwrap();
            std::future::pending::<()>().await;
        }));
        let mut requests = pin!(overdue.notified());
        assert!(turns.poll(requests.as_mut(), &mut cx).is_pending());
        assert!(turns.poll(requests.as_mut(), &mut cx).is_pending());
        let woken = bell.0.load(Ordering::SeqCst);
        assert!(turns.poll(requests.as_mut(), &mut cx).is_pending());
        assert_eq!(
            bell.0.load(Ordering::SeqCst),
            woken,
            "it waits for room without spinning"
        );
        overdue.notify_one();
        assert_eq!(bell.0.load(Ordering::SeqCst), woken + 1);
        assert!(turns.poll(requests.as_mut(), &mut cx).is_ready());
    }

    #[tokio::test]
    async fn a_driver_outlives_its_requests() {
        let (ended, end) = oneshot::channel();
        let go_on = Arc::new(Notify::new());
        let work = driver({
            let go_on = go_on.clone();
            async move {
                go_on.notified().await;
                let _ = ended.send(());
            }
        });
        assert_eq!(work.along(async { 7 }).await, 7);
        go_on.notify_one();
        end.await.expect("the driver ends by itself");
    }
}
