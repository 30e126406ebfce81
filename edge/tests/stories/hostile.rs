//! Clients that mean harm, or are broken the same way: each is ended, is told what it may be told, costs a bounded amount,
//! and a viewer beside it is served as ever.

mod h1;
pub(crate) mod h2;
mod quic;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use weir_shared::config::{ByteSize, HumanDuration};

use crate::{
    origin::{FakeOrigin, Stage},
    site::Site,
};

/// Longer than any limit of [`impatient`].
const LONG: Duration = Duration::from_secs(10);

/// An edge that loses patience within a test's time.
async fn impatient(origin: &FakeOrigin) -> Site {
    Site::configured(origin.addr, |config| {
        config.https = Some(crate::tls::https(None));
        config.limits.head_timeout = HumanDuration(Duration::from_millis(400));
        config.limits.answer_grace = HumanDuration(Duration::from_millis(400));
        config.limits.answer_rate = ByteSize(1 << 30);
        config.limits.idle_timeout = HumanDuration(Duration::from_millis(1500));
    })
    .await
}

fn stage() -> FakeOrigin {
    FakeOrigin::start(Stage::new("aa", 1000))
}

async fn shed(site: &Site, limit: &str) -> u64 {
    site.metric(&format!("weir_edge_shed_total{{limit=\"{limit}\"}}")).await
}

/// Sends all this and reads what comes until the edge closes; `None`: it does not.
async fn told(to: SocketAddr, bytes: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // An edge that has heard enough may close while we speak.
    let _ = stream.write_all(bytes).await;
    let mut told = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut told)).await;
    ended.ok().map(|_| String::from_utf8_lossy(&told).into_owned())
}

/// Sends the same again and again; says how many bytes it took until the edge closed, `None` if it took `limit`.
async fn flood(stream: &mut TcpStream, piece: &[u8], limit: usize) -> Option<usize> {
    let block = piece.repeat((16 * 1024 / piece.len()).max(1));
    let mut sent = 0;
    while sent < limit {
        // What the edge has to say meanwhile is not its undoing.
        let mut ignored = [0; 4096];
        while matches!(stream.try_read(&mut ignored), Ok(n) if n > 0) {}
        match timeout(LONG, stream.write_all(&block)).await {
            Ok(Ok(())) => sent += block.len(),
            Ok(Err(_)) | Err(_) => return Some(sent),
        }
    }
    None
}
