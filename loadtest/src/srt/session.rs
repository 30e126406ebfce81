//! One SRT publish over one UDP socket.
//!
//! Before this: [`crate::publisher`]. After this: the server under test.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    net::{UdpSocket, lookup_host},
    time::{sleep_until, timeout},
};
use weir_shared::srt::{crypto::KeyError, reject::Reject};

use super::{
    caller::{Caller, Counts, Dice, Over, Wish},
    url::PublishUrl,
};
use crate::{
    mux::{Muxer, PACKET_BYTES},
    rtmp::{PublishError, Status, session::NEGOTIATION_LIMIT},
    tag::{Opening, Tag, Track},
};

/// Transport packets in a datagram: what fits into 1500 bytes with all headers.
const TRAIN_BYTES: usize = 7 * PACKET_BYTES;
/// Largest datagram.
const DATAGRAM_BYTES: usize = 1500;
/// Datagrams of the server that are looked at between two frames.
const HEARD_MAX: usize = 64;
/// How long, beyond the latency, the server may take to acknowledge the rest.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// An accepted publish. [`Session::close`] says goodbye.
pub struct Session {
    socket: UdpSocket,
    caller: Caller,
    muxer: Option<Muxer>,
    /// Transport packets that do not fill a datagram yet.
    rest: Vec<u8>,
}

impl Session {
    /// Calls `url`. `key` stands for its stream id, where it has none.
    pub async fn connect(url: &str, key: &str) -> Result<Self, PublishError> {
        let url: PublishUrl = url.parse().map_err(PublishError::SrtUrl)?;
        timeout(NEGOTIATION_LIMIT, Self::call(url, key))
            .await
            .map_err(|_| PublishError::TimedOut("accept the publish"))?
    }

    async fn call(url: PublishUrl, key: &str) -> Result<Self, PublishError> {
        let address = format!("{}:{}", url.host, url.port);
        let (socket, peer) = open(&url)
            .await
            .map_err(|source| PublishError::Connect { address, source })?;
        let wish = Wish {
            stream_id: Some(url.stream_id.unwrap_or_else(|| key.to_owned())),
            latency_ms: url.latency_ms,
            passphrase: url.passphrase.map(|passphrase| (passphrase, url.key_bytes)),
        };
        let dice = Dice {
            socket: rand::random_range(1..0x3fff_ffff),
            first_sequence: rand::random(),
            salt: rand::random(),
            key: rand::random(),
        };
        let unkeyed = |error: KeyError| PublishError::Unsendable(error.to_string());
        let mut session = Self {
            socket,
            caller: Caller::new(wish, peer.ip(), dice, Instant::now()).map_err(unkeyed)?,
            muxer: None,
            rest: Vec::new(),
        };
        while !session.caller.is_live() {
            session.turn().await?;
        }
        Ok(session)
    }

    pub async fn send_opening(&mut self, opening: &Opening) -> Result<(), PublishError> {
        let unmuxable = |error: crate::mux::Unmuxable| PublishError::Unsendable(error.to_string());
        self.muxer = Some(Muxer::new(opening).map_err(unmuxable)?);
        Ok(())
    }

    /// Sends a tag of a source. Pictures leave at once, sound with the datagram that it fills or the next picture.
    pub async fn send_tag(&mut self, tag: Tag) -> Result<(), PublishError> {
        let Some(muxer) = &mut self.muxer else {
            return Err(PublishError::Unsendable("a frame before its opening".to_owned()));
        };
        let unmuxable = |error: crate::mux::Unmuxable| PublishError::Unsendable(error.to_string());
        muxer.tag(&tag, &mut self.rest).map_err(unmuxable)?;
        let now = Instant::now();
        let ready = match tag.track {
            Track::Video => self.rest.len(),
            Track::Audio => self.rest.len() / TRAIN_BYTES * TRAIN_BYTES,
        };
        for train in self.rest[..ready].chunks(TRAIN_BYTES) {
            self.caller.send(train, now);
        }
        self.rest.drain(..ready);
        self.flush().await?;
        self.hear()?;
        self.flush().await
    }

    /// Waits until the server ends the publish, and keeps it going meanwhile. May be dropped without losing anything.
    pub async fn next_status(&mut self) -> Result<Status, PublishError> {
        loop {
            self.turn().await?;
        }
    }

    /// Waits for the last acknowledgement, then says goodbye.
    pub async fn close(mut self) -> Result<(), PublishError> {
        let rest = std::mem::take(&mut self.rest);
        for train in rest.chunks(TRAIN_BYTES) {
            self.caller.send(train, Instant::now());
        }
        let limit = self.caller.latency() + CLOSE_LIMIT;
        let arrived = async {
            while !self.caller.is_settled() {
                self.turn().await?;
            }
            Ok::<_, PublishError>(())
        };
        timeout(limit, arrived).await.unwrap_or(Ok(()))?;
        self.caller.farewell(Instant::now());
        self.flush().await
    }

    /// Bytes of all datagrams, without IP and UDP headers.
    pub fn bytes_sent(&self) -> u64 {
        self.caller.counts().bytes
    }

    pub fn counts(&self) -> Counts {
        self.caller.counts()
    }

    /// One datagram or one timeout.
    async fn turn(&mut self) -> Result<(), PublishError> {
        self.flush().await?;
        tokio::select! {
            readable = self.socket.readable() => readable.map_err(PublishError::Io)?,
            () = sleep_until(self.caller.timeout().into()) => {}
        }
        self.hear()?;
        self.flush().await
    }

    fn hear(&mut self) -> Result<(), PublishError> {
        let mut datagram = [0; DATAGRAM_BYTES];
        for _ in 0..HEARD_MAX {
            match self.socket.try_recv(&mut datagram) {
                Ok(length) => {
                    let datagram = datagram.get(..length).unwrap_or_default();
                    self.caller.datagram(datagram, Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(PublishError::Io(error)),
            }
        }
        self.caller.tick(Instant::now());
        match self.caller.over() {
            None => Ok(()),
            Some(over) => Err(words(over)),
        }
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        while let Some(packet) = self.caller.transmit() {
            self.socket.send(&packet).await.map_err(PublishError::Io)?;
        }
        Ok(())
    }
}

async fn open(url: &PublishUrl) -> io::Result<(UdpSocket, SocketAddr)> {
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let peer = lookup_host((url.host.as_str(), url.port))
        .await?
        .next()
        .ok_or_else(nowhere)?;
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(peer).await?;
    Ok((socket, peer))
}

fn words(over: Over) -> PublishError {
    let code = match over {
        Over::Closed => return PublishError::Closed,
        Over::Idle => return PublishError::TimedOut("answer"),
        Over::Key => Reject::BadSecret.code(),
        Over::Refused(code) => code,
    };
    let description = Reject::of_code(code).map_or_else(|| "no word for it".to_owned(), |reject| reject.to_string());
    PublishError::Refused(Status {
        level: "error".to_owned(),
        code: code.to_string(),
        description,
    })
}
