//! Who may have what: the only maker of [`Granted`], without which no body byte leaves this edge.
//!
//! Before this: `target.rs` (what is asked for) and `directory.rs` (what is known of its stream). After this: the rest of
//! `handle.rs`. The signatures themselves are [`weir_shared::playback`]'s; here is decided which of them counts, and what
//! has been verified once is remembered by its hash.
//!
//! | the request carries | its object | |
//! |---|---|---|
//! | a session ticket in its path | any | goes on if the session may |
//! | a signed query | a multivariant playlist | enters: a session begins, its ticket stands in the playlist's addresses |
//! | a signed query | anything else | is sent to the ticketed address of the same object |
//! | nothing | a multivariant playlist | 401, or whatever the site's own check says |
//! | nothing | anything else | 401 |
//!
//! Streams that need no ticket are open whatever the request carries. Everything is open to an edge of the fleet that has this
//! one as its parent (`auth/fleet.rs`): it looks at its own viewers' tickets.

mod credentials;
mod external;
pub mod fleet;
mod verify;

use std::sync::Arc;

use http::{HeaderMap, request::Parts};
use weir_shared::{
    directory::{Closed, StreamRecord},
    hls::address::Object,
    id::StreamKey,
    playback::{
        Caller, Invalid, UnixMillis,
        policy::Policy,
        session::{Session, ViewerId},
        ticket::NotMinted,
    },
    serve::Peer,
};

use crate::{metrics::Metrics, refusal::Refusal, target::Target};

pub use verify::{BadPlayback, Verifier};

use credentials::{Credentials, Given};
use fleet::Fleet;

/// Permission to answer one request.
#[derive(Debug)]
pub struct Granted {
    target: Target,
    by: By,
    session: Option<Session>,
    /// The ticket of a session that begins with this answer.
    begins: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Viewer,
    /// An edge that has this one as its parent.
    Child,
}

impl Granted {
    /// Everybody may have it, or nobody.
    pub fn to_all(target: Target, known: &Known) -> Result<Self, Refusal> {
        match known.closed {
            Some(why) => Err(Refusal::Closed(why)),
            None => Ok(Self {
                target,
                by: By::Viewer,
                session: None,
                begins: None,
            }),
        }
    }

    pub fn key(&self) -> &StreamKey {
        self.target.key()
    }

    /// `None`: the viewer may have everything of this stream, and there is no such thing.
    pub fn object(&self) -> Option<&Object> {
        self.target.object()
    }

    /// Cache key and origin path: nothing of the viewer is in it.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// Whether this is one viewer's request, and not one of an edge for all of its own.
    pub fn is_viewers(&self) -> bool {
        self.by == By::Viewer
    }

    /// Who it is. `None`: the stream is open, and nobody is told apart.
    pub fn viewer(&self) -> Option<ViewerId> {
        self.session.map(|session| session.viewer)
    }

    /// When the viewer's time is over.
    pub fn until(&self) -> Option<UnixMillis> {
        self.session.and_then(|session| session.stream_expire)
    }

    /// Whether the viewer's time is not over yet.
    pub fn holds(&self, now: UnixMillis) -> Result<(), Refusal> {
        match self.until() {
            Some(until) if now >= until => Err(Refusal::Unauthorised(Invalid::StreamExpired)),
            _ => Ok(()),
        }
    }

    /// Where the children of this multivariant playlist are for this viewer: the ticketed directory of the playlist
    /// itself. `None`: where the playlist says.
    pub fn directory_of_children(&self) -> Option<String> {
        let mut directory = self.target.ticketed_directory(self.begins.as_deref()?);
        let (within, _file) = self.target.below_key().rsplit_once('/').unwrap_or_default();
        if !within.is_empty() {
            directory.push_str(within);
            directory.push('/');
        }
        Some(directory)
    }
}

/// What comes of a request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made, and nearly always a grant"
)]
pub enum Verdict {
    Enter(Granted),
    /// Its object is below the viewer's ticket: there, relative to its own address.
    Redirect(String),
}

/// What is known of the stream that is asked for.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// `None`: this edge has no directory.
    pub record: Option<Arc<StreamRecord>>,
    /// Why others than those with a preview ticket are not let in.
    pub closed: Option<Closed>,
}

/// Decides for one listener.
#[derive(Clone)]
pub struct Auth {
    /// `false`: whoever stands in front of this listener has checked already.
    pub tickets: bool,
    pub verifier: Arc<Verifier>,
    pub fleet: Fleet,
    pub metrics: Arc<Metrics>,
}

impl Auth {
    /// Whether it depends on who asks: [`Auth::grant`]. Else the stream is open to all, or closed to all:
    /// [`Granted::to_all`].
    pub fn asks_who(&self, known: &Known, headers: &HeaderMap) -> bool {
        let signed = known.record.as_ref().is_some_and(|record| record.signed_playback);
        (self.tickets && signed) || known.closed == Some(Closed::Backstage) || self.fleet.knows(headers)
    }

    /// Where it depends on who asks.
    pub async fn grant(
        &self,
        target: Target,
        known: &Known,
        peer: Peer,
        request: &Parts,
        now: UnixMillis,
    ) -> Result<Verdict, Refusal> {
        let verdict = self.decide(target, known, peer, request, now).await;
        if let Err(Refusal::Unauthorised(why)) = &verdict {
            self.metrics.auth_refused.with_label_values(&[why.code()]).inc();
        }
        verdict
    }

    async fn decide(
        &self,
        target: Target,
        known: &Known,
        peer: Peer,
        request: &Parts,
        now: UnixMillis,
    ) -> Result<Verdict, Refusal> {
        if self.fleet.knows(&request.headers) {
            return Ok(Verdict::Enter(Granted {
                target,
                by: By::Child,
                session: None,
                begins: None,
            }));
        }
        let record = known.record.as_ref().ok_or(Refusal::NoSuchObject)?;
        let needed = self.tickets && record.signed_playback;
        let caller = Caller {
            peer: peer.addr.ip(),
            real: self.verifier.real_address(peer, &request.headers),
        };
        let (session, begins) = match Credentials::of(&target, request.uri.query())? {
            Given::Session(ticket) => {
                let session = self.verifier.session(record, ticket).await?;
                session.admits(now, caller)?;
                (session, false)
            }
            Given::Query(credentials) => {
                let policy = self.verifier.policy(record, &credentials, peer, request).await?;
                policy.admits(now, caller)?;
                (Session::of(&policy, ViewerId(rand::random())), true)
            }
            Given::Nothing if needed && target.is_entrance() => {
                (self.ask_the_site(&target, caller, request, now).await?, true)
            }
            Given::Nothing if needed => return Err(Refusal::Unauthorised(Invalid::Missing)),
            Given::Nothing => return Err(Refusal::Closed(Closed::Backstage)),
        };
        match known.closed {
            Some(Closed::Backstage) if session.preview => {}
            Some(why) => return Err(Refusal::Closed(why)),
            None => {}
        }
        if !begins {
            return Ok(Verdict::Enter(Granted {
                target,
                by: By::Viewer,
                session: Some(session),
                begins: None,
            }));
        }
        if target.object().is_none() {
            return Err(Refusal::NoSuchObject);
        }
        let ticket = mint(&session, record)?;
        if target.is_entrance() {
            return Ok(Verdict::Enter(Granted {
                target,
                by: By::Viewer,
                session: Some(session),
                begins: Some(ticket),
            }));
        }
        let mut location = target.ticketed_directory(&ticket);
        location.push_str(target.below_key());
        if let Some(query) = credentials::without_credentials(request.uri.query()) {
            location.push('?');
            location.push_str(&query);
        }
        Ok(Verdict::Redirect(location))
    }
}

impl Auth {
    /// A viewer without a ticket: let in if the site's own check says so.
    async fn ask_the_site(
        &self,
        target: &Target,
        caller: Caller,
        request: &Parts,
        now: UnixMillis,
    ) -> Result<Session, Refusal> {
        let site = self.verifier.external();
        let site = site.ok_or(Refusal::Unauthorised(Invalid::Missing))?;
        site.ask(target.key(), caller.real, request).await?;
        let stay = UnixMillis::try_from(site.session.as_millis()).unwrap_or(UnixMillis::MAX);
        let policy = Policy {
            stream_expire: Some(now.saturating_add(stay)),
            ..Policy::until(now)
        };
        Ok(Session::of(&policy, ViewerId(rand::random())))
    }
}

/// A session's ticket, signed with the stream's newest secret.
fn mint(session: &Session, record: &StreamRecord) -> Result<String, Refusal> {
    let secret = record.playback_secrets.first().ok_or(NotMinted::NoSecret);
    secret
        .and_then(|secret| session.mint(&record.key, secret))
        .map_err(|_| Refusal::Unauthorised(Invalid::Signature))
}
