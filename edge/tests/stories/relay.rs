//! A line between an edge and its origin that can be cut in the middle of an answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// Answers to cut: how many, to requests whose path ends so, after that many bytes.
#[derive(Debug, Clone, Default)]
struct Plan {
    path_end: String,
    after: usize,
    left: usize,
}

pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(origin: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = plan.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((edge, _)) = listener.accept().await {
                let (from_edge, to_edge) = edge.into_split();
                let (from_origin, to_origin) = TcpStream::connect(origin).await.unwrap().into_split();
                let asked = Arc::new(Mutex::new(String::new()));
                tokio::spawn(requests(from_edge, to_origin, asked.clone()));
                tokio::spawn(answers(from_origin, to_edge, asked, shared.clone()));
            }
        });
        Self { addr, plan, accepting }
    }

    /// Cuts the next answers to requests whose path ends so, after `after` bytes, head included.
    pub(crate) fn cut(&self, path_end: &str, after: usize, times: usize) {
        *self.plan.lock().unwrap() = Plan {
            path_end: path_end.to_owned(),
            after,
            left: times,
        };
    }

    /// Cuts that are still to come.
    pub(crate) fn cuts_left(&self) -> usize {
        self.plan.lock().unwrap().left
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One request at a time, as HTTP/1.1 has it; remembers which one it is.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Arc<Mutex<String>>) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let head = String::from_utf8_lossy(&bytes[..n]);
        if let Some(path) = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
            *asked.lock().unwrap() = path.to_owned();
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Arc<Mutex<String>>, plan: Arc<Mutex<Plan>>) {
    let mut bytes = [0; 4096];
    let mut passed = (String::new(), 0);
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let path = asked.lock().unwrap().clone();
        if passed.0 != path {
            passed = (path, 0);
        }
        let cut_at = {
            let mut plan = plan.lock().unwrap();
            let hit = plan.left > 0 && !plan.path_end.is_empty() && passed.0.ends_with(&plan.path_end);
            let room = plan.after.saturating_sub(passed.1);
            let cut = (hit && n > room).then_some(room);
            plan.left -= usize::from(cut.is_some());
            cut
        };
        passed.1 += n;
        let whole = to.write_all(&bytes[..cut_at.unwrap_or(n)]).await.is_ok();
        if !whole || cut_at.is_some() {
            return;
        }
    }
}
