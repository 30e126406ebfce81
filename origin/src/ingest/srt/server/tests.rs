//! The listener on real sockets, with a caller whose bytes are made by hand.

use std::net::Ipv4Addr;

use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle, time::timeout};
use weir_shared::id::StreamKey;

use super::*;
use crate::ingest::{
    Admitted, Event, Publication, Refusal, Slot, Tally, admission,
    catalog::{Catalog, Credential, SaltSecret, StreamPolicy, Takeover, TokenHash},
    lobby::Places,
    secret::Secret,
    srt::{
        Limits, crypto,
        hello::{self, Hello, MAGIC, Request, Terms},
        sequence::Sequence,
        session,
        wire::{Kind, Packet, Writer},
    },
};

/// Far longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const PASSPHRASE: &str = "correct-horse-battery";
const KEY: [u8; 16] = [9; 16];

/// What a door hands to the test for every publish it lets in.
struct LetIn {
    admitted: Admitted,
    _events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    tally: Arc<Tally>,
}

/// Lets in everybody but the key `taken`.
struct OpenDoor(mpsc::UnboundedSender<LetIn>);

impl Door for OpenDoor {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        if admitted.key().as_str() == "taken" {
            return Err(Refusal::Busy);
        }
        let (events, receiver) = mpsc::channel(64);
        let (stop, tally) = (CancellationToken::new(), Arc::<Tally>::default());
        let publication = Publication {
            events,
            stop: stop.clone(),
            tally: tally.clone(),
        };
        let let_in = LetIn {
            admitted,
            _events: receiver,
            stop,
            tally,
        };
        self.0.send(let_in).map_err(|_| Refusal::ShuttingDown)?;
        Ok(publication)
    }
}

struct Running {
    server: Arc<Server>,
    catalog: Arc<Catalog>,
    address: SocketAddr,
    let_in: mpsc::UnboundedReceiver<LetIn>,
    stop: CancellationToken,
    listening: JoinHandle<()>,
}

impl Running {
    async fn start(entrance: Entrance, config: Config) -> Self {
        let (door, let_in) = mpsc::unbounded_channel();
        let salts = SaltSecret::new([5; 32]);
        let catalog = Arc::new(Catalog::new(false, salts.clone()));
        let key = |text: &str| -> StreamKey { text.parse().unwrap() };
        for name in ["open", "taken"] {
            catalog.put(StreamPolicy::open(key(name))).unwrap();
        }
        let mut locked = StreamPolicy::open(key("locked"));
        locked.passphrase = Some(Secret::new(PASSPHRASE));
        locked.allow_key_only = false;
        catalog.put(locked).unwrap();
        let mut named = StreamPolicy::open(key("named"));
        named.allow_key_only = false;
        named.primary.credential = Some(Credential::new("anna", "opensesame", &salts));
        named.primary.tokens = vec![TokenHash::of("token-1")];
        named.backup.tokens = vec![TokenHash::of("token-2")];
        catalog.put(named).unwrap();
        let mut disabled = StreamPolicy::open(key("disabled"));
        disabled.active = false;
        catalog.put(disabled).unwrap();

        let admission = Arc::new(Admission::new(catalog.clone(), None, admission::Metrics::default()));
        let server = Server::new(config, admission, Arc::new(OpenDoor(door)), CancellationToken::new());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = server.bind(any, entrance).await.unwrap();
        let address = bound.local();
        let stop = CancellationToken::new();
        let listening = tokio::spawn(server.clone().listen(bound, stop.clone()));
        Self {
            server,
            catalog,
            address,
            let_in,
            stop,
            listening,
        }
    }

    async fn shared() -> Self {
        Self::start(Entrance::Shared, quick()).await
    }

    async fn let_in(&mut self) -> LetIn {
        timeout(PATIENCE, self.let_in.recv()).await.unwrap().unwrap()
    }

    fn counted(&self, counter: &prometheus::IntCounterVec, label: &str) -> u64 {
        counter.with_label_values(&[label]).get()
    }
}

/// Wrong guesses are answered at once.
fn quick() -> Config {
    Config {
        limits: Limits {
            slow_refusal: Duration::ZERO,
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// An encoder.
struct Caller {
    socket: UdpSocket,
    number: u32,
    /// Ours at the listener.
    session: u32,
}

/// What a caller is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Welcome,
    Code(u32),
}

impl Caller {
    async fn new(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(to).await.unwrap();
        Self {
            socket,
            number: 4711,
            session: 0,
        }
    }

    fn hello(&self, request: Request, version: u32, cookie: u32) -> Hello {
        Hello {
            version,
            encryption: 0,
            extension: 5,
            first_sequence: Sequence::new(100),
            mtu: 1500,
            window: 8192,
            request,
            socket: self.number,
            cookie,
        }
    }

    async fn send_hello(&self, hello: &Hello, extensions: &[u8]) {
        let content = [hello.write([127, 0, 0, 1].into()), extensions.to_vec()].concat();
        let packet = Writer { destination: 0 }.handshake(1000, &content);
        self.socket.send(&packet).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        let length = timeout(PATIENCE, self.socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    async fn hear_hello(&self) -> Hello {
        loop {
            let packet = self.receive().await;
            if let Kind::Handshake(content) = Packet::parse(&packet).unwrap().kind {
                return Hello::parse(content).unwrap().0;
            }
        }
    }

    async fn cookie(&self) -> u32 {
        // As often as encoders ask.
        let answer = loop {
            self.send_hello(&self.hello(Request::Induction, 4, 0), &[]).await;
            if let Ok(answer) = timeout(Duration::from_millis(250), self.hear_hello()).await {
                break answer;
            }
        };
        assert_eq!((answer.version, answer.extension), (5, MAGIC));
        answer.cookie
    }

    async fn call(&mut self, stream_id: &str, key_material: Option<&[u8]>) -> Told {
        let cookie = self.cookie().await;
        let terms = Terms {
            version: 0x01_05_01,
            flags: 0x3f,
            receive_latency_ms: 0,
            send_latency_ms: 120,
        };
        let extensions = hello::write_request(Some(&terms), Some(stream_id), key_material);
        self.send_hello(&self.hello(Request::Conclusion, 5, cookie), &extensions)
            .await;
        let answer = self.hear_hello().await;
        self.session = answer.socket;
        match answer.request {
            Request::Conclusion => Told::Welcome,
            Request::Other(code) => Told::Code(code),
            other => panic!("{other:?}"),
        }
    }

    async fn send_data(&self, number: u32, payload: &[u8]) {
        let sequence = Sequence::new(100).plus(number).raw();
        let mut packet = Vec::new();
        for word in [sequence, 0xc000_0000, 1000, self.session] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(payload);
        self.socket.send(&packet).await.unwrap();
    }

    async fn send_control(&self, type_id: u16) {
        let mut packet = Vec::new();
        for word in [1 << 31 | u32::from(type_id) << 16, 0, 1000, self.session, 0] {
            packet.extend(word.to_be_bytes());
        }
        self.socket.send(&packet).await.unwrap();
    }

    /// Skips acknowledgements until the listener says goodbye.
    async fn goodbye(&self) {
        loop {
            if Packet::parse(&self.receive().await).unwrap().kind == Kind::Shutdown {
                return;
            }
        }
    }
}

fn key_material(passphrase: &str) -> Vec<u8> {
    crypto::announcement(passphrase, &[7; 16], Some(&KEY), None).unwrap()
}

#[tokio::test]
async fn who_may_publish_is_told_in_codes() {
    let mut server = Running::shared().await;
    let (right, wrong) = (key_material(PASSPHRASE), key_material("not-the-passphrase"));
    let mut broken = right.clone();
    broken.truncate(20);
    let long = "x".repeat(513);
    let table: &[(&str, Option<&[u8]>, Told)] = &[
        ("open", None, Told::Welcome),
        ("app/open", None, Told::Welcome),
        ("#!::r=open,m=publish", None, Told::Welcome),
        ("open", Some(&right), Told::Code(1011)),
        ("locked", Some(&right), Told::Welcome),
        ("locked/backup", Some(&right), Told::Welcome),
        ("locked", None, Told::Code(1011)),
        ("locked", Some(&wrong), Told::Code(1010)),
        ("locked", Some(&broken), Told::Code(1004)),
        ("named", None, Told::Code(2401)),
        ("named?user=anna&pass=opensesame", None, Told::Welcome),
        ("#!::r=named,u=anna,pass=opensesame", None, Told::Welcome),
        ("#!::r=named,u=anna,pass=wrong", None, Told::Code(2401)),
        ("#!::r=named,token=token-2", None, Told::Welcome),
        ("named?t=token-3", None, Told::Code(2401)),
        ("taken", None, Told::Code(2409)),
        ("disabled", None, Told::Code(2403)),
        ("nobody", None, Told::Code(2404)),
        ("no key", None, Told::Code(2400)),
        ("", None, Told::Code(2400)),
        (&long, None, Told::Code(2400)),
        ("#!::r=open,m=request", None, Told::Code(2405)),
    ];
    for (id, key_material, wanted) in table {
        let mut caller = Caller::new(server.address).await;
        assert_eq!(caller.call(id, *key_material).await, *wanted, "{id}");
        if *wanted == Told::Welcome {
            let let_in = server.let_in().await;
            let backup = id.contains("backup") || id.contains("token-2");
            let slot = if backup { Slot::Backup } else { Slot::Primary };
            assert_eq!(let_in.admitted.slot(), slot, "{id}");
        }
    }
    let refused = &server.server.admission.metrics().refused;
    for reason in [
        "wrong_passphrase",
        "no_passphrase",
        "unexpected_passphrase",
        "busy",
        "disabled",
    ] {
        assert_eq!(server.counted(refused, reason), 1, "{reason}");
    }
    // Whoever looks into the stream's health finds it there.
    let noted = server.catalog.last_refusal(&"locked".parse().unwrap());
    assert_eq!(noted.map(|(refusal, _)| refusal), Some(Refusal::WrongPassphrase));
}

#[tokio::test]
async fn a_stream_s_own_port_takes_that_stream_and_no_other() {
    let mut server = Running::start(Entrance::Own("open".parse().unwrap()), quick()).await;
    for (id, wanted) in [
        ("open", Told::Welcome),
        ("", Told::Welcome),
        ("backup", Told::Welcome),
        ("named?t=token-1", Told::Code(2403)),
        ("nobody", Told::Code(2404)),
    ] {
        let told = Caller::new(server.address).await.call(id, None).await;
        assert_eq!(told, wanted, "{id}");
        if wanted == Told::Welcome {
            assert_eq!(server.let_in().await.admitted.key().as_str(), "open");
        }
    }
}

#[tokio::test]
async fn a_call_ends_in_every_way_it_should() {
    let mut server = Running::shared().await;
    let ended = server.server.config.metrics.ended.clone();
    let reached = |reason: &'static str| {
        let ended = ended.clone();
        async move {
            let counted = async {
                while ended.with_label_values(&[reason]).get() == 0 {
                    yield_now().await;
                }
            };
            timeout(PATIENCE, counted)
                .await
                .unwrap_or_else(|_| panic!("not {reason}"));
        }
    };
    // A takeover.
    let mut caller = Caller::new(server.address).await;
    assert_eq!(caller.call("open", None).await, Told::Welcome);
    server.let_in().await.stop.cancel();
    caller.goodbye().await;
    reached("stopped").await;
    // The encoder's own goodbye.
    assert_eq!(caller.call("open", None).await, Told::Welcome);
    let let_in = server.let_in().await;
    caller.send_data(0, b"no transport stream").await;
    caller.send_control(5).await;
    reached("closed").await;
    assert_eq!(let_in.tally.link.lock().map(|link| link.packets), Some(1));
    // Rubbish.
    assert_eq!(caller.call("open", None).await, Told::Welcome);
    let _let_in = server.let_in().await;
    for number in 0..100 {
        caller.send_data(number, &[0; 1316]).await;
    }
    caller.goodbye().await;
    reached("media").await;
    // The stream is removed.
    assert_eq!(caller.call("open", None).await, Told::Welcome);
    let _let_in = server.let_in().await;
    server.catalog.remove(&"open".parse().unwrap());
    caller.goodbye().await;
    reached("revoked").await;
    // The port goes.
    assert_eq!(caller.call("named?t=token-1", None).await, Told::Welcome);
    let _let_in = server.let_in().await;
    server.stop.cancel();
    caller.goodbye().await;
    reached("port_closed").await;
    timeout(PATIENCE, &mut server.listening).await.unwrap().unwrap();
    assert_eq!(server.server.config.metrics.calls.get(), 0);
}

#[tokio::test]
async fn who_falls_silent_in_either_sense_is_ended_and_shutdown_waits() {
    let short = Duration::from_millis(300);
    let mut config = Config {
        session: session::Settings { idle: short },
        ..quick()
    };
    let mut server = Running::start(Entrance::Shared, config.clone()).await;
    let mut caller = Caller::new(server.address).await;
    caller.call("open", None).await;
    let _let_in = server.let_in().await;
    caller.goodbye().await;
    assert_eq!(server.counted(&config.metrics.ended, "idle"), 1);

    config.session = session::Settings::default();
    config.limits.silence = short;
    server = Running::start(Entrance::Shared, config.clone()).await;
    caller = Caller::new(server.address).await;
    caller.call("open", None).await;
    let _let_in = server.let_in().await;
    caller.goodbye().await;

    caller.call("open", None).await;
    let _let_in = server.let_in().await;
    server.server.shutdown.cancel();
    caller.goodbye().await;
    timeout(PATIENCE, server.server.drained()).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_is_the_same() {
    let mut server = Running::shared().await;
    let mut caller = Caller::new(server.address).await;
    caller.call("open", None).await;
    let _let_in = server.let_in().await;
    let session = caller.session;
    caller.call("open", None).await;
    assert_eq!(caller.session, session);
    assert!(server.let_in.try_recv().is_err(), "let in twice");
}

#[tokio::test]
async fn a_stranger_can_t_speak_into_a_call() {
    let mut server = Running::shared().await;
    let mut caller = Caller::new(server.address).await;
    caller.call("open", None).await;
    let let_in = server.let_in().await;
    let mut stranger = Caller::new(server.address).await;
    stranger.session = caller.session;
    stranger.send_control(5).await;
    let dropped = server.server.config.metrics.dropped.clone();
    let unknown = async {
        while dropped.with_label_values(&["unknown"]).get() == 0 {
            yield_now().await;
        }
    };
    timeout(PATIENCE, unknown).await.unwrap();
    assert!(!let_in.stop.is_cancelled());
    assert_eq!(server.server.config.metrics.publishing.get(), 1);
}

/// Tens of thousands of callers that never come back: nothing of them is kept, and who comes back is served at once.
#[tokio::test]
async fn a_flood_of_first_steps_leaves_nothing_behind() {
    let mut config = quick();
    config.session.idle = PATIENCE * 3;
    let mut server = Running::start(Entrance::Shared, config).await;
    let mut established = Caller::new(server.address).await;
    established.call("open", None).await;
    let _let_in = server.let_in().await;
    let flood = Caller::new(server.address).await;
    for number in 0..20_000_u32 {
        let hello = Hello {
            socket: number + 1,
            ..flood.hello(Request::Induction, 4, 0)
        };
        flood.send_hello(&hello, &[]).await;
        if number % 1000 == 0 {
            // Conclusions with made-up cookies.
            let hello = Hello {
                cookie: number + 1,
                ..flood.hello(Request::Conclusion, 5, 0)
            };
            flood.send_hello(&hello, &[]).await;
        }
    }
    let began = Instant::now();
    let told = Caller::new(server.address).await.call("named?t=token-1", None).await;
    assert_eq!(told, Told::Welcome);
    assert!(began.elapsed() < PATIENCE);
    let _let_in = server.let_in().await;
    assert_eq!(server.server.config.metrics.calls.get(), 2);
    established.send_control(5).await;
}

#[tokio::test]
async fn calls_are_bounded() {
    let config = Config {
        limits: Limits {
            places: Places {
                connections: 1,
                ..Places::default()
            },
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut server = Running::start(Entrance::Shared, config).await;
    let mut first = Caller::new(server.address).await;
    assert_eq!(first.call("open", None).await, Told::Welcome);
    let _let_in = server.let_in().await;
    let mut second = Caller::new(server.address).await;
    assert_eq!(second.call("named?t=token-1", None).await, Told::Code(2402));
}

#[tokio::test]
async fn a_new_passphrase_lets_a_running_publish_be_and_holds_for_the_next() {
    let mut server = Running::shared().await;
    let mut caller = Caller::new(server.address).await;
    let material = key_material(PASSPHRASE);
    assert_eq!(caller.call("locked", Some(&material)).await, Told::Welcome);
    let let_in = server.let_in().await;
    let mut policy = StreamPolicy::clone(&server.catalog.get(&"locked".parse().unwrap()).unwrap());
    policy.passphrase = Some(Secret::new("another-passphrase"));
    policy.takeover = Takeover::Takeover;
    server.catalog.put(policy).unwrap();
    let mut second = Caller::new(server.address).await;
    assert_eq!(second.call("locked", Some(&material)).await, Told::Code(1010));
    assert_eq!(
        second.call("locked", Some(&key_material("another-passphrase"))).await,
        Told::Welcome
    );
    assert!(!let_in.stop.is_cancelled());
}

#[tokio::test]
async fn a_wrong_guess_is_answered_slowly_and_a_right_call_is_not_kept_waiting() {
    let slow_refusal = Duration::from_millis(400);
    let mut config = quick();
    config.limits.slow_refusal = slow_refusal;
    let mut server = Running::start(Entrance::Shared, config).await;
    let address = server.address;
    let began = Instant::now();
    let guess = tokio::spawn(async move { Caller::new(address).await.call("nobody", None).await });
    let mut right = Caller::new(address).await;
    assert_eq!(right.call("open", None).await, Told::Welcome);
    let _let_in = server.let_in().await;
    assert!(!guess.is_finished());
    assert_eq!(guess.await.unwrap(), Told::Code(2404));
    assert!(began.elapsed() >= slow_refusal);
}
