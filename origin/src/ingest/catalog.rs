//! The streams an origin knows, as admission needs them: put and removed by the configuration or the control plane, read by
//! every publish, watched by every running one.
//!
//! Before this: `config.rs`, the control plane. After this: `ingest/admission.rs`, `ingest/ports.rs`.

pub mod policy;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::RwLock;
use tokio::sync::watch;
use weir_shared::id::StreamKey;

use super::Refusal;

pub use policy::{Credential, OnRotate, OwnPorts, SaltSecret, Secrets, StreamPolicy, Takeover, Timers, TokenHash};

/// Streams known at once, unless said.
pub const STREAMS_MAX: usize = 100_000;

/// Why a policy was not taken over. The catalog is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("more than {0} streams")]
    Full(usize),
    #[error("port {0} belongs to another stream")]
    PortTaken(u16),
}

/// Every stream's policy. Cheap to read from any thread.
#[derive(Debug)]
pub struct Catalog {
    inner: RwLock<Inner>,
    any_key: bool,
    salts: SaltSecret,
    /// Streams it takes.
    most: usize,
    /// Counts the changes: whoever keeps something per stream (ports) compares and follows.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    streams: HashMap<StreamKey, Entry>,
    /// User name → streams it may publish.
    users: HashMap<String, BTreeSet<StreamKey>>,
    /// Fixed own ports → stream.
    ports: HashMap<u16, StreamKey>,
    /// Streams that make encoders be asked for a password.
    challenging: usize,
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    /// `None`: removed.
    policy: watch::Sender<Option<Arc<StreamPolicy>>>,
    last_refusal: Option<(Refusal, SystemTime)>,
}

/// A policy as it is, and the means to hear of its changes.
#[derive(Debug, Clone)]
pub struct Watched {
    pub policy: Arc<StreamPolicy>,
    /// Grows with every put of this catalog.
    pub generation: u64,
    /// `None` in it: the stream was removed. `None` instead of it: a stream that only `any_key` lets in.
    pub news: Option<watch::Receiver<Option<Arc<StreamPolicy>>>>,
}

impl Catalog {
    /// `any_key`: development, every well-formed key is an open stream unless it was put here.
    pub fn new(any_key: bool, salts: SaltSecret) -> Self {
        Self {
            inner: RwLock::default(),
            any_key,
            salts,
            most: STREAMS_MAX,
            version: watch::channel(0).0,
        }
    }

    /// Takes as many streams, and not [`STREAMS_MAX`].
    #[must_use]
    pub fn holding(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Streams it takes.
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Whether a policy of this stream would be taken over.
    pub fn has_room_for(&self, key: &StreamKey) -> bool {
        let streams = &self.inner.read().streams;
        streams.len() < self.most || streams.contains_key(key)
    }

    /// Streams that are known.
    pub fn len(&self) -> usize {
        self.inner.read().streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a stream or replaces its policy. Running publishes hear of it.
    pub fn put(&self, policy: StreamPolicy) -> Result<(), CatalogError> {
        let policy = Arc::new(policy);
        let mut inner = self.inner.write();
        inner.check(&policy, self.most)?;
        let old = inner.streams.get(&policy.key).and_then(|e| e.policy.borrow().clone());
        if let Some(old) = old {
            inner.unlist(&old);
        }
        inner.list(&policy);
        let generation = *self.version.borrow() + 1;
        match inner.streams.get_mut(&policy.key) {
            Some(entry) => {
                entry.generation = generation;
                entry.policy.send_replace(Some(policy));
            }
            None => {
                let entry = Entry {
                    generation,
                    policy: watch::channel(Some(policy.clone())).0,
                    last_refusal: None,
                };
                inner.streams.insert(policy.key.clone(), entry);
            }
        }
        self.version.send_replace(generation);
        Ok(())
    }

    /// Forgets a stream; its publishes end. `false`: it was not known.
    pub fn remove(&self, key: &StreamKey) -> bool {
        let mut inner = self.inner.write();
        let Some(entry) = inner.streams.remove(key) else {
            return false;
        };
        if let Some(old) = entry.policy.send_replace(None) {
            inner.unlist(&old);
        }
        self.version.send_modify(|version| *version += 1);
        true
    }

    pub fn get(&self, key: &StreamKey) -> Option<Arc<StreamPolicy>> {
        self.watch(key).map(|watched| watched.policy)
    }

    /// Like [`Catalog::get`], for whoever has to hear of changes.
    pub fn watch(&self, key: &StreamKey) -> Option<Watched> {
        let found = self.inner.read().streams.get(key).and_then(|entry| {
            let policy = entry.policy.borrow().clone()?;
            Some(Watched {
                policy,
                generation: entry.generation,
                news: Some(entry.policy.subscribe()),
            })
        });
        found.or_else(|| {
            self.any_key.then(|| Watched {
                policy: Arc::new(StreamPolicy::open(key.clone())),
                generation: 0,
                news: None,
            })
        })
    }

    pub fn knows(&self, key: &StreamKey) -> bool {
        self.any_key || self.inner.read().streams.contains_key(key)
    }

    /// The stream that a fixed own port belongs to. Ports taken from a range are in [`super::ports::PortTable`].
    pub fn by_port(&self, port: u16) -> Option<StreamKey> {
        self.inner.read().ports.get(&port).cloned()
    }

    /// Streams that this user name may publish, each with its policy.
    pub fn of_user(&self, username: &str) -> Vec<Arc<StreamPolicy>> {
        let inner = self.inner.read();
        let keys = inner.users.get(username).into_iter().flatten();
        keys.filter_map(|key| inner.streams.get(key)?.policy.borrow().clone())
            .collect()
    }

    /// Whether any stream makes encoders be asked for a password.
    pub fn challenges(&self) -> bool {
        self.inner.read().challenging > 0
    }

    pub fn list(&self) -> Vec<Arc<StreamPolicy>> {
        let inner = self.inner.read();
        inner
            .streams
            .values()
            .filter_map(|e| e.policy.borrow().clone())
            .collect()
    }

    /// Keeps why a publish of this stream was refused, for whoever looks into its health.
    pub fn note_refusal(&self, key: &StreamKey, refusal: Refusal) {
        if let Some(entry) = self.inner.write().streams.get_mut(key) {
            entry.last_refusal = Some((refusal, SystemTime::now()));
        }
    }

    /// The latest refused publish of this stream, if any.
    pub fn last_refusal(&self, key: &StreamKey) -> Option<(Refusal, SystemTime)> {
        self.inner.read().streams.get(key)?.last_refusal
    }

    /// The number of changes so far, and the next ones.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub const fn salts(&self) -> &SaltSecret {
        &self.salts
    }
}

impl Inner {
    fn check(&self, policy: &StreamPolicy, most: usize) -> Result<(), CatalogError> {
        if self.streams.len() >= most && !self.streams.contains_key(&policy.key) {
            return Err(CatalogError::Full(most));
        }
        let taken = |port: &u16| self.ports.get(port).is_some_and(|owner| *owner != policy.key);
        match fixed_ports(policy).find(taken) {
            Some(port) => Err(CatalogError::PortTaken(port)),
            None => Ok(()),
        }
    }

    fn list(&mut self, policy: &StreamPolicy) {
        for (_, credential) in policy.credentials() {
            let streams = self.users.entry(credential.username().to_owned()).or_default();
            streams.insert(policy.key.clone());
        }
        for port in fixed_ports(policy) {
            self.ports.insert(port, policy.key.clone());
        }
        self.challenging += usize::from(policy.challenges());
    }

    fn unlist(&mut self, policy: &StreamPolicy) {
        for (_, credential) in policy.credentials() {
            if let Some(streams) = self.users.get_mut(credential.username()) {
                streams.remove(&policy.key);
                if streams.is_empty() {
                    self.users.remove(credential.username());
                }
            }
        }
        for port in fixed_ports(policy) {
            self.ports.remove(&port);
        }
        self.challenging -= usize::from(policy.challenges());
    }
}

fn fixed_ports(policy: &StreamPolicy) -> impl Iterator<Item = u16> {
    policy.ports.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::new(false, SaltSecret::new([3; 32]))
    }

    fn policy(catalog: &Catalog, key: &str, user: &str, password: &str) -> StreamPolicy {
        let mut policy = StreamPolicy::open(key.parse().unwrap());
        policy.allow_key_only = false;
        policy.primary.credential = Some(Credential::new(user, password, catalog.salts()));
        policy
    }

    #[test]
    fn users_ports_and_challenges_follow_every_change() {
        let catalog = catalog();
        let key: StreamKey = "show".parse().unwrap();
        assert!(!catalog.challenges());
        let mut first = policy(&catalog, "show", "anna", "one");
        first.ports.rtmp = Some(20_001);
        catalog.put(first).unwrap();
        assert!(catalog.challenges());
        assert_eq!(catalog.of_user("anna").len(), 1);
        assert_eq!(catalog.by_port(20_001), Some(key.clone()));

        // Another user, no port any more.
        catalog.put(policy(&catalog, "show", "bert", "two")).unwrap();
        assert_eq!(catalog.of_user("anna").len(), 0);
        assert_eq!(catalog.of_user("bert").len(), 1);
        assert_eq!(catalog.by_port(20_001), None);

        assert!(catalog.remove(&key));
        assert!(!catalog.remove(&key));
        assert!(!catalog.challenges() && catalog.of_user("bert").is_empty() && !catalog.knows(&key));
    }

    #[test]
    fn a_port_has_one_owner() {
        let catalog = catalog();
        let with_port = |key, port| {
            let mut policy = policy(&catalog, key, "anna", "one");
            policy.ports.rtmps = Some(port);
            policy
        };
        catalog.put(with_port("one", 20_001)).unwrap();
        assert_eq!(
            catalog.put(with_port("two", 20_001)),
            Err(CatalogError::PortTaken(20_001))
        );
        assert!(!catalog.knows(&"two".parse().unwrap()));
        catalog.put(with_port("one", 20_001)).unwrap();
        catalog.put(with_port("two", 20_002)).unwrap();
        assert_eq!(catalog.of_user("anna").len(), 2);
    }

    #[test]
    fn a_full_catalog_takes_changes_and_no_newcomers() {
        let catalog = catalog().holding(2);
        for key in ["one", "two"] {
            catalog.put(policy(&catalog, key, "anna", "one")).unwrap();
        }
        assert_eq!(
            catalog.put(policy(&catalog, "three", "anna", "one")),
            Err(CatalogError::Full(2))
        );
        catalog.put(policy(&catalog, "one", "bert", "two")).unwrap();
        assert!(catalog.remove(&"two".parse().unwrap()));
        catalog.put(policy(&catalog, "three", "anna", "one")).unwrap();
        assert_eq!((catalog.len(), catalog.of_user("anna").len()), (2, 1));
    }

    #[test]
    fn a_watcher_hears_of_rotation_and_removal() {
        let catalog = catalog();
        let key: StreamKey = "show".parse().unwrap();
        catalog.put(policy(&catalog, "show", "anna", "one")).unwrap();
        let watched = catalog.watch(&key).unwrap();
        let mut news = watched.news.unwrap();
        catalog.put(policy(&catalog, "show", "anna", "two")).unwrap();
        assert!(news.has_changed().unwrap());
        assert!(news.borrow_and_update().is_some());
        assert!(catalog.watch(&key).unwrap().generation > watched.generation);
        catalog.remove(&key);
        assert!(news.borrow().is_none());
    }

    #[test]
    fn with_any_key_a_stranger_is_an_open_stream_and_a_known_one_is_not() {
        let catalog = Catalog::new(true, SaltSecret::random());
        catalog.put(policy(&catalog, "show", "anna", "one")).unwrap();
        assert!(!catalog.get(&"show".parse().unwrap()).unwrap().allow_key_only);
        assert!(catalog.get(&"other".parse().unwrap()).unwrap().allow_key_only);
    }
}
