//! The listener's side of the caller–listener handshake, version 5 (draft-sharabayko-srt-01, section 4.3.1). Pure: nothing
//! is kept of a caller before its conclusion brings the cookie back, and then the caller of this file decides.
//!
//! Before this: `srt/hello.rs`, `srt/cookie.rs`. After this: `srt/server.rs`, which asks admission about a [`Knock`], and
//! `srt/session.rs`, which begins with a [`Beginning`].

use core::net::SocketAddr;
use std::time::Instant;

use super::{
    cookie::Cookies,
    crypto::Keyring,
    hello::{Extensions, Hello, HelloError, MAGIC, Request, Terms},
    reject::Reject,
    sequence::Sequence,
    wire::Writer,
};

/// What we say we are: 1.5.3.
const VERSION: u32 = 0x01_05_03;
/// Callers before 1.3 speak the handshake of old.
const VERSION_MIN: u32 = 0x01_03_00;
/// Since 1.5 libsrt's senders wait a round trip before they repeat a packet again (SRTO_RETRANSMITALGO).
const VERSION_THAT_WAITS: u32 = 0x01_05_00;
/// Largest packet taken, with IP and UDP headers, and the smallest that makes sense, in bytes.
const MTU: u32 = 1500;
const MTU_MIN: u32 = 76;
const LIVE: &[u8] = b"live";

/// What a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// How long packets are held back at least, in milliseconds; callers may ask for more …
    pub latency_ms: u16,
    /// … up to here.
    pub latency_max_ms: u16,
    /// Packets in flight.
    pub window: u32,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            latency_ms: 120,
            latency_max_ms: 8_000,
            window: 25_600,
        }
    }
}

/// Answers handshakes of one port.
#[derive(Debug, Clone)]
pub struct Listener {
    cookies: Cookies,
    offer: Offer,
    started: Instant,
}

/// What is to be done about a handshake packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// To be sent back at once.
    Induction(Vec<u8>),
    /// To be sent back at once: it is not worth asking anybody.
    Rejected {
        answer: Vec<u8>,
        reject: Reject,
    },
    /// Somebody with a good cookie wants to publish.
    Knock(Box<Knock>),
    Ignored(Ignored),
}

/// Why a handshake packet gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Not a handshake.
    Malformed,
    /// A conclusion with a cookie that is not of its address, or too old.
    Cookie,
    /// Neither of the two steps.
    Other,
}

impl Ignored {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Cookie => "cookie",
            Self::Other => "other",
        }
    }
}

/// A caller whose address is proved, and what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    pub peer: SocketAddr,
    hello: Hello,
    terms: Terms,
    /// As sent.
    pub stream_id: Vec<u8>,
    pub key_material: Option<Vec<u8>>,
    /// The conclusion's own timestamp, and when it came: both clocks at one moment.
    pub timestamp: u32,
    pub arrived: Instant,
}

/// What a session begins with.
#[derive(Debug)]
pub struct Beginning {
    /// To be sent, and again whenever the conclusion is repeated.
    pub answer: Vec<u8>,
    pub writer: Writer,
    pub first_sequence: Sequence,
    pub latency_ms: u16,
    pub window: u32,
    /// The sender does not repeat a packet that is still on its way, however often it is asked: it may be asked often.
    pub sender_waits: bool,
    pub timestamp: u32,
    pub arrived: Instant,
    pub keys: Option<Keyring>,
}

impl Listener {
    /// `started`: the moment that cookies are dated from.
    pub const fn new(secret: [u8; 32], offer: Offer, started: Instant) -> Self {
        Self {
            cookies: Cookies::new(secret),
            offer,
            started,
        }
    }

    /// A handshake packet's content that came `now` with this timestamp.
    pub fn hear(&self, peer: SocketAddr, timestamp: u32, content: &[u8], now: Instant) -> Answer {
        let Ok((hello, extensions)) = Hello::parse(content) else {
            return Answer::Ignored(Ignored::Malformed);
        };
        let uptime = now.saturating_duration_since(self.started);
        match hello.request {
            Request::Induction => {
                let cookie = self.cookies.bake(peer, hello.socket, uptime);
                Answer::Induction(induction(peer, &hello, cookie))
            }
            Request::Conclusion if !self.cookies.is_good(hello.cookie, peer, hello.socket, uptime) => {
                Answer::Ignored(Ignored::Cookie)
            }
            Request::Conclusion => match self.conclude(peer, timestamp, hello, extensions, now) {
                Ok(knock) => Answer::Knock(Box::new(knock)),
                Err(reject) => Answer::Rejected {
                    answer: rejection(peer, &hello, reject),
                    reject,
                },
            },
            Request::Rejection(_) | Request::Other(_) => Answer::Ignored(Ignored::Other),
        }
    }

    fn conclude(
        &self,
        peer: SocketAddr,
        timestamp: u32,
        hello: Hello,
        extensions: &[u8],
        now: Instant,
    ) -> Result<Knock, Reject> {
        if hello.version < 5 {
            return Err(Reject::Version);
        }
        if hello.mtu < MTU_MIN || hello.socket == 0 {
            return Err(Reject::Rogue);
        }
        let extensions = Extensions::parse(extensions).map_err(|error| match error {
            HelloError::LongStreamId => Reject::BadRequest,
            HelloError::Truncated | HelloError::TruncatedExtension => Reject::Rogue,
        })?;
        let terms = extensions.terms.ok_or(Reject::Rogue)?;
        if terms.version < VERSION_MIN {
            return Err(Reject::Version);
        }
        if terms.flags & Terms::STREAM != 0 {
            return Err(Reject::MessageApi);
        }
        if extensions.congestion.is_some_and(|name| name != LIVE) {
            return Err(Reject::Congestion);
        }
        if extensions.filter {
            return Err(Reject::Filter);
        }
        if extensions.group {
            return Err(Reject::Group);
        }
        Ok(Knock {
            peer,
            hello,
            terms,
            stream_id: extensions.stream_id.unwrap_or_default(),
            key_material: extensions.key_material.map(<[u8]>::to_vec),
            timestamp,
            arrived: now,
        })
    }

    /// The caller is let in and gets this socket of ours.
    pub fn accept(&self, knock: &Knock, socket: u32, keys: Option<Keyring>) -> Beginning {
        let Offer {
            latency_ms,
            latency_max_ms,
            window,
        } = self.offer;
        let asked = knock.terms.send_latency_ms;
        let latency_ms = latency_ms.max(asked.min(latency_max_ms));
        let terms = Terms {
            version: VERSION,
            flags: Terms::TSBPD
                | Terms::ENCRYPTION
                | Terms::TOO_LATE_DROP
                | Terms::PERIODIC_LOSS_REPORTS
                | Terms::RETRANSMISSION_FLAG,
            receive_latency_ms: latency_ms,
            // We send nothing.
            send_latency_ms: knock.terms.receive_latency_ms,
        };
        let hello = Hello {
            version: 5,
            encryption: 0,
            mtu: knock.hello.mtu.min(MTU),
            window,
            socket,
            cookie: 0,
            ..knock.hello
        };
        let writer = Writer {
            destination: knock.hello.socket,
        };
        let key_material = keys.as_ref().map(Keyring::message);
        let content = hello.write_answer(knock.peer.ip(), &terms, key_material);
        Beginning {
            answer: writer.handshake(0, &content),
            writer,
            first_sequence: knock.hello.first_sequence,
            latency_ms,
            window,
            sender_waits: knock.terms.version >= VERSION_THAT_WAITS,
            timestamp: knock.timestamp,
            arrived: knock.arrived,
            keys,
        }
    }
}

impl Knock {
    /// The caller's socket: with its address, it tells callers apart.
    pub const fn socket(&self) -> u32 {
        self.hello.socket
    }

    /// What a caller that is not let in is told.
    pub fn reject(&self, reject: Reject) -> Vec<u8> {
        rejection(self.peer, &self.hello, reject)
    }
}

/// The caller's own socket number stands where the draft wants the listener's: there is no socket of ours yet.
fn induction(peer: SocketAddr, hello: &Hello, cookie: u32) -> Vec<u8> {
    let answer = Hello {
        version: 5,
        encryption: 0,
        extension: MAGIC,
        cookie,
        ..*hello
    };
    Writer {
        destination: hello.socket,
    }
    .handshake(0, &answer.write(peer.ip()))
}

fn rejection(peer: SocketAddr, hello: &Hello, reject: Reject) -> Vec<u8> {
    let answer = Hello {
        version: 5,
        encryption: 0,
        extension: 0,
        request: Request::Rejection(reject),
        ..*hello
    };
    Writer {
        destination: hello.socket,
    }
    .handshake(0, &answer.write(peer.ip()))
}

#[cfg(test)]
mod tests;
