//! A TCP line that can stand still: what comes in the meantime arrives at once later, as after a hiccup of an uplink.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinHandle,
};

/// Bytes taken at a time.
const CHUNK: usize = 64 * 1024;

/// A relay to one address.
pub struct Relay {
    pub address: SocketAddr,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn open(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (held, state) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, state.clone()));
            }
        });
        Ok(Self { address, held, task })
    }

    /// Carries nothing to the target for this long.
    pub async fn hold(&self, time: Duration) {
        self.held.send_replace(true);
        tokio::time::sleep(time).await;
        self.held.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with either side, or with the relay.
async fn carry(client: TcpStream, target: SocketAddr, held: watch::Receiver<bool>) -> io::Result<()> {
    let target = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_target, to_target) = target.into_split();
    tokio::select! {
        done = forward(&mut from_client, to_target, held) => done,
        done = io::copy(&mut from_target, &mut to_client) => done.map(drop),
    }
}

async fn forward(
    from: &mut tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if held.wait_for(|held| !held).await.is_err() || read == 0 {
            return Ok(());
        }
        to.write_all(chunk.get(..read).unwrap_or_default()).await?;
    }
}
