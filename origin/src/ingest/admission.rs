//! Who may publish: five ways in, one check. It yields [`Admitted`], which only this module can make and without which
//! there is no pipeline.
//!
//! | way | where it is read |
//! |---|---|
//! | Adobe challenge `authmod=adobe` (ffmpeg and GStreamer `user:pass@`, OBS "Use authentication") | `connect` |
//! | userinfo in the tcUrl | `connect` |
//! | `?user=…&pass=…` after application or key | `connect`, `publish` |
//! | `?t=<token>` after application or key | `connect`, `publish` |
//! | the stream's passphrase, or user and password or token in the stream id | SRT handshake |
//! | key only, where the policy allows it | `publish` |
//!
//! | file | holds |
//! |---|---|
//! | `claims.rs` | what an encoder shows |
//! | `adobe.rs` | the challenge |
//! | `judge.rs` | the decisions |
//! | `tenure.rs` | how long a publish stays admitted |
//! | `metrics.rs` | what is counted |
//!
//! Before this: `rtmp/connection.rs`, `srt/connection.rs`. After this: `live/registry.rs` by way of [`Door`](super::Door).

pub mod adobe;
pub mod claims;
mod judge;
mod metrics;
mod tenure;

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use weir_shared::id::StreamKey;

pub(super) use self::adobe::AUTH_FAILED;
use self::{
    adobe::{Answer, OpaqueFault, Opaques, Said},
    claims::{App, Claims, Name, Pairs},
    judge::{Opened, Shown},
};
pub use self::{
    claims::{APP, QUIET_APP, VARIANT_MAX},
    judge::Proof,
    metrics::Metrics,
    tenure::{Revoked, Tenure},
};
use super::{
    Entrance, Line, Refusal, Slot, Transport,
    catalog::{Catalog, StreamPolicy, Takeover},
    redacted,
    secret::Secret,
    webhook::{Asked, Question, Webhook},
};

/// Checks every publish of an origin.
pub struct Admission {
    catalog: Arc<Catalog>,
    opaques: Mutex<Opaques>,
    started: Instant,
    webhook: Option<Webhook>,
    metrics: Metrics,
}

/// The answer to a `connect`.
#[derive(Debug)]
pub enum Greeting {
    /// Go on to the publish, which is judged by [`Admission::admit`].
    Welcome(Box<Caller>),
    /// Refused for now, with this description: the encoder connects again and answers it.
    Challenge(String),
    /// The password dialogue failed.
    AuthFailed,
    Refused(Refusal),
}

/// A connection that was welcomed, and what it has shown so far.
#[derive(Debug)]
pub struct Caller {
    app: App,
    by_app: Claims,
    by_url: Claims,
    /// `None`: it did not answer a challenge.
    opened: Option<Vec<Opened>>,
    /// The one its payloads are locked with, found right.
    passphrase: Option<Secret>,
}

impl Caller {
    /// An encoder over SRT, which names no application. `passphrase`: the stream's, where the caller knew it.
    pub fn over_srt(claims: Claims, passphrase: Option<Secret>) -> Self {
        Self {
            app: App::default(),
            by_app: Claims::default(),
            by_url: claims,
            opened: None,
            passphrase,
        }
    }
}

/// A publish that was checked: the only way to a pipeline.
#[derive(Debug)]
pub struct Admitted {
    key: StreamKey,
    slot: Slot,
    variant: Option<u8>,
    proof: Proof,
    generation: u64,
    takeover: Takeover,
    line: Line,
}

impl Admitted {
    pub const fn key(&self) -> &StreamKey {
        &self.key
    }

    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// `<key>/1`, `<key>/2`, …: one of several publishes that make up the stream, 1 to [`VARIANT_MAX`].
    pub const fn variant(&self) -> Option<u8> {
        self.variant
    }

    /// What it was let in for.
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Of the policy that it was judged by: grows with every rotation.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What to do with a publisher that is already there.
    pub const fn takeover(&self) -> Takeover {
        self.takeover
    }

    pub const fn line(&self) -> &Line {
        &self.line
    }
}

impl Admission {
    pub fn new(catalog: Arc<Catalog>, webhook: Option<Webhook>, metrics: Metrics) -> Self {
        Self {
            catalog,
            opaques: Mutex::new(Opaques::new(rand::random())),
            started: Instant::now(),
            webhook,
            metrics,
        }
    }

    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a `connect`. `tc_url`: looked at for userinfo only; the port is that of the socket.
    pub fn greet(&self, entrance: &Entrance, app: &str, tc_url: &str, now: Instant) -> Greeting {
        let app = match App::parse(app) {
            Ok(app) => app,
            Err(refusal) => return Greeting::Refused(refusal),
        };
        let by_url = Claims::from_url(tc_url);
        match Said::read(&app.query) {
            Said::Nothing => {
                let by_app = Claims::from_query(&app.query);
                let own = match entrance {
                    Entrance::Own(key) => self.catalog.get(key),
                    Entrance::Shared => None,
                };
                let shows_nothing = by_app.is_empty() && by_url.is_empty();
                if judge::must_challenge(&app, shows_nothing, own.as_deref(), self.catalog.challenges()) {
                    self.count_step("need_auth");
                    return Greeting::Challenge(adobe::NEED_AUTH.to_owned());
                }
                Greeting::Welcome(Box::new(Caller {
                    app,
                    by_app,
                    by_url,
                    opened: None,
                    passphrase: None,
                }))
            }
            Said::User(user) => {
                self.count_step("challenge");
                Greeting::Challenge(self.challenge(entrance, user, now))
            }
            Said::Answer(answer) => match self.open(entrance, answer, now) {
                Some(opened) => Greeting::Welcome(Box::new(Caller {
                    app,
                    by_app: Claims::default(),
                    by_url,
                    opened: Some(opened),
                    passphrase: None,
                })),
                None => Greeting::AuthFailed,
            },
            Said::Nonsense => {
                self.count_step("nonsense");
                Greeting::AuthFailed
            }
        }
    }

    /// The stream that a name stands for, and the passphrase that its encoders have to know over SRT.
    pub fn passphrase(&self, entrance: &Entrance, name: &str) -> Result<(StreamKey, Option<Secret>), Refusal> {
        let name = Name::parse(name, None, entrance.own())?;
        tracing::Span::current().record("key", redacted(&name.key));
        let policy = self.catalog.get(&name.key).ok_or(Refusal::UnknownStream)?;
        Ok((name.key, policy.passphrase.clone()))
    }

    /// Judges a publish. `name`: as sent, query and all.
    pub async fn admit(&self, caller: &Caller, name: &str, line: Line) -> Result<(Admitted, Tenure), Refusal> {
        let name = Name::parse(name, caller.app.instance.as_deref(), line.entrance.own())?;
        if line.transport != Transport::Srt {
            // Over SRT it is known since the passphrase was looked up.
            tracing::Span::current().record("key", redacted(&name.key));
        }
        let watched = self.catalog.watch(&name.key).ok_or(Refusal::UnknownStream)?;
        let by_name = Claims::from_query(&name.query);
        let shown = Shown {
            opened: caller.opened.as_deref(),
            claims: [Some(&by_name), Some(&caller.by_app), Some(&caller.by_url)],
            slot: name.slot,
            passphrase: caller.passphrase.as_ref(),
        };
        let judged = judge::judge(&watched.policy, &line.entrance, &shown);
        if let Err(refusal) = judged {
            self.catalog.note_refusal(&name.key, refusal);
        }
        let (slot, proof) = judged?;
        let mut tenure = Tenure {
            news: watched.news,
            slot,
            proof: Some(proof.clone()),
            until: None,
            asked: None,
        };
        let mut admitted = Admitted {
            key: name.key.clone(),
            slot,
            variant: name.variant,
            proof,
            generation: watched.generation,
            takeover: watched.policy.takeover,
            line,
        };
        if let Some(webhook) = &self.webhook {
            let question = question(&admitted, &caller.app, &name);
            let asked = webhook.ask(&question, &self.metrics).await;
            if let Err(refusal) = asked {
                self.catalog.note_refusal(&name.key, refusal);
            }
            self.obey(asked?, &mut admitted, &mut tenure)?;
            tenure.asked = Some(question);
        }
        self.metrics
            .admitted
            .with_label_values(&[admitted.proof.as_str()])
            .inc();
        Ok((admitted, tenure))
    }

    /// A refusal that came after the admission, or from it: counted here, whoever said it.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.metrics.refused.with_label_values(&[refusal.as_str()]).inc();
    }

    /// A refusal of the door, for whoever looks into the stream's health.
    pub fn note_refusal(&self, key: &StreamKey, refusal: Refusal) {
        self.catalog.note_refusal(key, refusal);
    }

    /// A publish has ended: the webhook hears of it, if it was asked.
    pub fn left(&self, tenure: Tenure) {
        if let (Some(webhook), Some(question)) = (&self.webhook, tenure.asked) {
            webhook.tell_closed(question);
        }
    }

    fn obey(&self, asked: Asked, admitted: &mut Admitted, tenure: &mut Tenure) -> Result<(), Refusal> {
        tenure.until = asked.lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        let Some(key) = asked.key.filter(|key| *key != admitted.key) else {
            return Ok(());
        };
        let watched = self.catalog.watch(&key).ok_or(Refusal::UnknownStream)?;
        if !watched.policy.active {
            return Err(Refusal::Disabled);
        }
        admitted.key = key;
        admitted.generation = watched.generation;
        admitted.takeover = watched.policy.takeover;
        tenure.news = watched.news;
        tenure.proof = None;
        Ok(())
    }

    /// The salt is the user's own, or one that looks like it: nobody learns which user names exist.
    fn challenge(&self, entrance: &Entrance, user: &str, now: Instant) -> String {
        let known = self.candidates(entrance, user);
        let salt = known
            .iter()
            .flat_map(|policy| policy.credentials())
            .find(|(_, credential)| credential.username() == user)
            .map_or_else(|| self.catalog.salts().salt_of(user), |(_, c)| c.salt().to_owned());
        let opaques = self.opaques.lock();
        opaques.challenge(user, &salt, self.millis(now), rand::random())
    }

    fn open(&self, entrance: &Entrance, answer: Answer<'_>, now: Instant) -> Option<Vec<Opened>> {
        let now = self.millis(now);
        let candidates = self.candidates(entrance, answer.user);
        let opened = judge::opened_by(&answer, candidates.iter().map(Arc::as_ref));
        let mut opaques = self.opaques.lock();
        let good = if opened.is_empty() {
            opaques.check(answer.opaque, answer.user, now)
        } else {
            opaques.spend(answer.opaque, answer.user, now)
        };
        self.count_step(match good {
            Ok(()) if opened.is_empty() => "wrong",
            Ok(()) => "accepted",
            Err(OpaqueFault::Foreign) => "foreign",
            Err(OpaqueFault::Expired) => "expired",
            Err(OpaqueFault::Replayed) => "replayed",
            Err(OpaqueFault::Full) => "full",
        });
        (good.is_ok() && !opened.is_empty()).then_some(opened)
    }

    /// Every stream of this user, whatever the port: that it is the right one is judged at the publish, and told then.
    fn candidates(&self, entrance: &Entrance, user: &str) -> Vec<Arc<StreamPolicy>> {
        let mut all = self.catalog.of_user(user);
        if let Entrance::Own(own) = entrance {
            // The port's own stream first: its salt is the one to send.
            all.sort_by_key(|policy| policy.key != *own);
        }
        all
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn count_step(&self, step: &str) {
        self.metrics.challenges.with_label_values(&[step]).inc();
    }
}

fn question(admitted: &Admitted, app: &App, name: &Name) -> Question {
    let queries = [&app.query, &name.query].map(|query| Pairs(query).without_secrets());
    let query = queries.iter().filter(|q| !q.is_empty()).map(String::as_str);
    Question {
        key: admitted.key.clone(),
        slot: admitted.slot,
        proof: admitted.proof.as_str(),
        line: admitted.line.clone(),
        app: if app.quiet { QUIET_APP } else { APP },
        query: query.collect::<Vec<_>>().join("&"),
    }
}

#[cfg(test)]
mod tests;
