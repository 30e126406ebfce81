//! A directory made of a list: what edges ask of an origin about streams, without the origin.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Response, StatusCode, request::Parts};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use weir_edge::config;
use weir_shared::{
    config::Secret,
    directory::{Cursor, PATH, Page, PlaybackSecret, RecordVersion, Status, StreamRecord},
    serve::{Handler, Peer, body::Body, drain::Drain, respond, tcp},
};

const CREDENTIAL: &str = "known to the fleet alone";

#[derive(Debug, Clone, Default)]
struct Records {
    number: u64,
    all: Vec<StreamRecord>,
}

pub(crate) struct FakeDirectory {
    addr: SocketAddr,
    records: Arc<watch::Sender<Records>>,
    asked: watch::Receiver<usize>,
    _task: AbortOnDropHandle<()>,
}

/// A live stream whose viewers need tickets, signed with one of these.
pub(crate) fn signed(key: &str, secrets: &[&str]) -> StreamRecord {
    StreamRecord {
        key: key.parse().unwrap(),
        version: RecordVersion {
            changed_at: 1_795_000_000_000,
            number: 1,
        },
        status: Status::Live,
        active: true,
        backstage: false,
        origins: Default::default(),
        signed_playback: true,
        playback_secrets: secrets.iter().copied().map(PlaybackSecret::new).collect(),
        limits: Default::default(),
        recording: None,
    }
}

impl FakeDirectory {
    pub(crate) async fn start(records: impl IntoIterator<Item = StreamRecord>) -> Self {
        let (sender, _) = watch::channel(Records {
            number: 0,
            all: records.into_iter().collect(),
        });
        let (records, (counter, asked)) = (Arc::new(sender), watch::channel(0));
        let answer = Answering {
            records: records.clone(),
            counter: Arc::new(counter),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serve = tcp::serve(listener, None, tcp::Limits::default(), answer, Drain::new());
        Self {
            addr,
            records,
            asked,
            _task: AbortOnDropHandle::new(tokio::spawn(serve)),
        }
    }

    /// What an edge is told of it.
    pub(crate) fn config(&self) -> config::Directory {
        config::Directory::new(vec![format!("http://{}", self.addr)], Secret::new(CREDENTIAL))
    }

    /// Changes a stream and tells the edges.
    pub(crate) fn change(&self, key: &str, change: impl FnOnce(&mut StreamRecord)) {
        self.records.send_modify(|records| {
            records.number += 1;
            let record = records.all.iter_mut().find(|r| r.key.as_str() == key).unwrap();
            record.version.number += 1;
            change(record);
        });
    }

    /// Questions about single streams.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

#[derive(Clone)]
struct Answering {
    records: Arc<watch::Sender<Records>>,
    counter: Arc<watch::Sender<usize>>,
}

impl Handler for Answering {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        let query = request.uri.query().unwrap_or_default();
        let authorised = request.headers["authorization"] == format!("Bearer {CREDENTIAL}");
        if request.uri.path() != PATH || !authorised {
            return respond::refusal(StatusCode::UNAUTHORIZED, "unauthorised", "not the fleet's credential");
        }
        let mut page = Page {
            cursor: Cursor { instance: 1, number: 0 },
            records: Vec::new(),
            unknown: Vec::new(),
            reset: false,
        };
        let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
        if let Some(since) = since {
            let since: Cursor = since.parse().unwrap();
            let mut records = self.records.subscribe();
            let changed = records.wait_for(|records| records.number > since.number);
            let _ = timeout(Duration::from_secs(10), changed).await;
            page.records = self.records.borrow().all.clone();
        } else if !query.is_empty() {
            self.counter.send_modify(|n| *n += 1);
            let records = self.records.borrow();
            for key in query.split('&').filter_map(|pair| pair.strip_prefix("key=")) {
                match records.all.iter().find(|record| record.key.as_str() == key) {
                    Some(record) => page.records.push(record.clone()),
                    None => page.unknown.push(key.parse().unwrap()),
                }
            }
        }
        page.cursor.number = self.records.borrow().number;
        respond::json(&serde_json::to_value(&page).unwrap())
    }
}
