//! What a configuration is made into: everything between the listeners and the origins, replaced as a whole when the
//! configuration changes.
//!
//! Requests that are being answered stay with the generation they came to; its followers end when nobody asks them any
//! more. What need not change is taken over: memory of limits and streams outlives a change of anything else.
//!
//! Before this: `app.rs`, and the listeners for [`Public`]. After this: `handle.rs`.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use http::{Response, request::Parts};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_shared::serve::{Handler, Peer, body::Body};

use crate::{
    admit::{Limits, Progress},
    auth::{
        Auth, Verifier,
        fleet::{Fleet, authorization},
    },
    cache::Store,
    config::{Config, Tickets},
    directory::Directory,
    handle,
    live::followers::Followers,
    metrics::Metrics,
    route::{Route, routes::Routes},
    upstream::{Upstream, threads::Threads},
    viewers::Viewers,
};

/// What outlives all generations.
#[derive(Debug, Clone)]
pub struct Lasting {
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub viewers: Arc<Viewers>,
    /// Where followers and fetches run.
    pub threads: Threads,
    /// Ends followers and fetches, and with them what is held.
    pub stop: CancellationToken,
}

/// One configuration at work.
pub struct Generation {
    pub config: Config,
    pub limits: Arc<Limits>,
    plain: handle::Edge,
    secure: handle::Edge,
    directory: Option<Known>,
}

/// The directory and its following, which ends with the last generation that uses it.
#[derive(Clone)]
struct Known {
    directory: Arc<Directory>,
    _following: Arc<DropGuard>,
}

impl Generation {
    /// Starts what has to run. `before`: the generation this one follows.
    pub fn new(config: Config, lasting: &Lasting, before: Option<&Self>) -> anyhow::Result<Self> {
        let Lasting {
            metrics,
            progress,
            viewers,
            threads,
            stop,
        } = lasting;
        let _threads = threads.enter();
        let limits = Arc::new(Limits::new(&config.limits, progress.clone(), metrics.clone()));
        if let Some(before) = before
            && before.differs_in_limits_only(&config)
        {
            let with_limits = |side: &handle::Edge| handle::Edge {
                limits: limits.clone(),
                ..side.clone()
            };
            return Ok(Self {
                plain: with_limits(&before.plain),
                secure: with_limits(&before.secure),
                directory: before.directory.clone(),
                limits,
                config,
            });
        }
        let unchanged = before.filter(|before| before.config.directory == config.directory);
        let known = match (unchanged, &config.directory) {
            (Some(before), _) => before.directory.clone(),
            (None, Some(directory)) => Some(Known::follow(
                Directory::new(directory, metrics.clone()).context("directory")?,
                stop,
            )),
            (None, None) => None,
        };
        let directory = known.as_ref().map(|known| known.directory.clone());
        let credential = config.directory.as_ref().map(|directory| &directory.credential);
        let upstream = Arc::new(Upstream::new(
            &config.parents,
            &config.origins,
            directory.clone(),
            credential.and_then(authorization),
            metrics.clone(),
        )?);
        let store = Store::new(
            config.cache.max_bytes.0,
            upstream.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let followers = Followers::new(
            config.follow.idle.0,
            config.follow.max_renditions,
            upstream.clone(),
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let routes = config
            .routes
            .iter()
            .map(|route| Route::new(route, &upstream).map(Arc::new));
        let routes = Routes::new(
            routes.collect::<anyhow::Result<_>>()?,
            (config.follow.idle.0, config.follow.max_renditions),
            upstream,
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let verifier = Arc::new(Verifier::new(&config.playback, metrics.clone()).context("playback")?);
        let fleet = Fleet::new(credential);
        let side = |tickets: Tickets| handle::Edge {
            followers: followers.clone(),
            routes: routes.clone(),
            store: store.clone(),
            directory: directory.clone(),
            auth: Auth {
                tickets: tickets == Tickets::On,
                verifier: verifier.clone(),
                fleet: fleet.clone(),
                metrics: metrics.clone(),
            },
            limits: limits.clone(),
            viewers: viewers.clone(),
            metrics: metrics.clone(),
        };
        Ok(Self {
            plain: side(config.http.as_ref().map_or(Tickets::On, |http| http.tickets)),
            secure: side(config.https.as_ref().map_or(Tickets::On, |https| https.tickets)),
            directory: known,
            limits,
            config,
        })
    }

    /// Where its streams are looked up, and their viewers told of.
    pub fn directory(&self) -> Option<Arc<Directory>> {
        self.directory.as_ref().map(|known| known.directory.clone())
    }

    /// Then all that is followed and kept can stay. Certificates are the listeners' matter.
    fn differs_in_limits_only(&self, config: &Config) -> bool {
        let mut like = self.config.clone();
        like.limits = config.limits.clone();
        like.max_connections = config.max_connections;
        if let (Some(like), Some(https)) = (&mut like.https, &config.https) {
            like.certificate.clone_from(&https.certificate);
            like.key.clone_from(&https.key);
            like.certificates.clone_from(&https.certificates);
        }
        like == *config
    }
}

impl Known {
    fn follow(directory: Arc<Directory>, stop: &CancellationToken) -> Self {
        let following = stop.child_token();
        tokio::spawn(directory.clone().follow(following.clone()));
        Self {
            directory,
            _following: Arc::new(following.drop_guard()),
        }
    }
}

/// What listeners call: each request meets the newest generation.
#[derive(Clone)]
pub struct Public(Arc<ArcSwap<Generation>>);

impl Public {
    pub fn new(first: Generation) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    pub fn current(&self) -> Arc<Generation> {
        self.0.load_full()
    }

    /// From the next request on.
    pub fn replace(&self, next: Generation) {
        self.0.store(Arc::new(next));
    }
}

impl Handler for Public {
    async fn handle(&self, peer: Peer, request: Box<Parts>) -> Response<Body> {
        let current = self.current();
        let side = match peer.secure {
            true => &current.secure,
            false => &current.plain,
        };
        // An edge asks for all of its viewers, as often as its streams have parts.
        let is_child = side.auth.fleet.knows(&request.headers);
        if !is_child && let Err(refusal) = current.limits.knock(peer.addr.ip()) {
            return refusal.response();
        }
        side.handle(peer, request).await
    }
}
