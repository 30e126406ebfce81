//! A TCP relay that can stall or cut everything that passes: the network at its worst, on demand.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes moved at once in one direction.
const PIECE_BYTES: usize = 64 * 1024;

/// A running relay; it ends when dropped.
pub struct Relay {
    /// Where to connect instead of the server.
    pub address: SocketAddr,
    stalled: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
    _running: DropGuard,
}

impl Relay {
    /// Stands in front of `server` on a free local port.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (stalled, stalls) = watch::channel(false);
        let (cuts, cut) = watch::channel(0);
        let stop = CancellationToken::new();
        let running = stop.clone();
        tokio::spawn(running.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (stalls, mut cut) = (stalls.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = pass(client, server, stalls) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        }));
        Ok(Self {
            address,
            stalled,
            cuts,
            _running: stop.drop_guard(),
        })
    }

    /// Lets nothing pass, or lets it pass again.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(client: TcpStream, server: SocketAddr, stalls: watch::Receiver<bool>) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = tokio::join!(
        copy(from_client, to_server, stalls.clone()),
        copy(from_server, to_client, stalls)
    );
    up.and(down)
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut stalls: watch::Receiver<bool>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let got = from.read(&mut piece).await?;
        if stalls.wait_for(|stalled| !stalled).await.is_err() || got == 0 {
            return to.shutdown().await;
        }
        to.write_all(piece.get(..got).unwrap_or(&[])).await?;
    }
}
