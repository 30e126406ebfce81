//! The made-up origin: an LL-HLS server without media, honest or with seeded defects.
//!
//! Before this: [`crate::content`]. After this: any LL-HLS edge or viewer. It uses the object names of Weir's origin, so
//! that Weir's edge can stand in front of it; caches that know nothing of it can, too.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, request::Parts};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::ObjectName,
    },
    serve::{
        Handler, Peer,
        body::Body,
        gzip::gzip,
        respond::{self, Asked, PlaylistLifetimes},
    },
};

use crate::{
    clock,
    content::{Content, Shape},
    defect::{Defect, Defects},
    stamp, ticket,
};

mod phase;
mod serve;

use phase::Phase;

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub shape: Shape,
    pub defects: Defects,
    /// Entry URLs need a policy signed with this.
    pub ticket_secret: Option<String>,
}

/// A running made-up origin; it ends when dropped.
pub struct MadeUpOrigin {
    pub address: SocketAddr,
    handler: Origin,
    _running: DropGuard,
}

#[derive(Clone)]
struct Origin(Arc<Inner>);

struct Inner {
    defects: Defects,
    ticket_secret: Option<String>,
    phases: Vec<Phase>,
    last_ticket: Mutex<Option<String>>,
    requests: AtomicU64,
}

impl MadeUpOrigin {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let started = clock::now();
        let (publishers, phases): (Vec<_>, Vec<_>) = Content::new(options.shape, started)
            .in_phases()
            .into_iter()
            .map(|content| Phase::new(content, options.defects.clone(), started))
            .unzip();
        let handler = Origin(Arc::new(Inner {
            defects: options.defects,
            ticket_secret: options.ticket_secret,
            phases,
            last_ticket: Mutex::default(),
            requests: AtomicU64::new(0),
        }));
        let stop = CancellationToken::new();
        tokio::spawn(serve::serve(listener, handler.clone(), stop.clone()));
        for (phase, publish) in publishers.into_iter().enumerate() {
            let (handler, told) = (handler.clone(), stop.clone());
            tokio::spawn(async move {
                if let Some(phase) = handler.0.phases.get(phase) {
                    told.run_until_cancelled(phase.tick(publish)).await;
                }
            });
        }
        Ok(Self {
            address,
            handler,
            _running: stop.drop_guard(),
        })
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.handler.0.requests.load(Ordering::Relaxed)
    }

    /// The entry URL of stream number `stream`.
    pub fn url(&self, stream: u32) -> String {
        format!("http://{}/app/{}/index.m3u8", self.address, Content::key(stream))
    }
}

impl Inner {
    fn multivariant(&self, asked: Asked<'_>, content: &Content, key: &str, query: Option<&str>, below: &str) -> Answer {
        let policy = pair(query, "policy");
        if let Some(secret) = &self.ticket_secret {
            let signature = pair(query, "signature").unwrap_or("");
            let signed = policy.is_some_and(|policy| ticket::is_signed(secret, key, policy, signature));
            if !signed {
                return Err(StatusCode::UNAUTHORIZED);
            }
        }
        let mut ticket = policy.map(|policy| format!("{:x}", stamp::stream_tag(policy)));
        if self.defects.has(Defect::ForeignTicket) {
            let before = std::mem::replace(&mut *self.last_ticket.lock(), ticket.clone());
            ticket = before.or(ticket);
        }
        let below = ticket.map_or(below.to_owned(), |ticket| format!("~{ticket}/{below}"));
        let text = Bytes::from(content.multivariant(&below));
        let lifetime = PlaylistLifetimes::new(1).multivariant;
        let compressed = asked.gzip();
        let body = if compressed { gzip(&text) } else { text };
        Ok(respond::playlist(asked, body, compressed, lifetime))
    }

    async fn answer(&self, request: &Parts) -> Answer {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let path = request.uri.path();
        let plain: String;
        let path = if path.contains("/~") {
            plain = path
                .split('/')
                .filter(|s| !s.starts_with('~'))
                .collect::<Vec<_>>()
                .join("/");
            &plain
        } else {
            path
        };
        let address = Address::parse(path).ok_or(StatusCode::NOT_FOUND)?;
        let key = address.key.as_str();
        let content = &self.phases.first().ok_or(StatusCode::NOT_FOUND)?.content;
        let stream = content.stream(key).ok_or(StatusCode::NOT_FOUND)?;
        let phase = self.phases.get(content.phase_of(stream)).ok_or(StatusCode::NOT_FOUND)?;
        match address.object {
            // Nothing of what is made up here is recorded.
            Object::Recorded(..) => Err(StatusCode::NOT_FOUND),
            Object::Index => self.multivariant(asked, content, key, request.uri.query(), "d/"),
            Object::Direct(ObjectName::Multivariant) => self.multivariant(asked, content, key, request.uri.query(), ""),
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                phase.media_playlist(asked, stream, &name, request.uri.query()).await
            }
            Object::Direct(ObjectName::Media {
                epoch,
                rendition,
                object,
            }) => {
                if epoch != content.epoch {
                    return Err(StatusCode::NOT_FOUND);
                }
                phase.object(asked, stream, &rendition, object).await
            }
        }
    }
}

type Answer = Result<Response<Body>, StatusCode>;

impl Handler for Origin {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        if request.method != Method::GET && request.method != Method::HEAD {
            return respond::method_not_allowed();
        }
        if request.uri.path() == "/metrics" {
            let text = format!(
                "# HELP weir_loadtest_origin_requests_total Requests answered by the made-up origin.\n\
                 # TYPE weir_loadtest_origin_requests_total counter\n\
                 weir_loadtest_origin_requests_total {}\n",
                self.0.requests.load(Ordering::Relaxed)
            );
            let kind = HeaderValue::from_static("text/plain; version=0.0.4");
            let asked = Asked {
                method: &request.method,
                headers: &request.headers,
            };
            return respond::page(asked, kind, HeaderValue::from_static("no-store"), text.into());
        }
        self.0.answer(&request).await.unwrap_or_else(|status| {
            let code = if status == StatusCode::UNAUTHORIZED {
                "unauthorized"
            } else {
                "refused"
            };
            respond::refusal(status, code, status.canonical_reason().unwrap_or("refused"))
        })
    }
}

fn pair<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
