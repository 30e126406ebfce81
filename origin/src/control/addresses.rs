//! The addresses that encoders and players are given: what the operator configured, not what a socket happens to be
//! bound to.

use std::sync::Arc;

use parking_lot::RwLock;

/// The newest [`Addresses`]: in one process, the edge's port is known only after the origin has started.
#[derive(Debug, Default)]
pub struct AddressBook(RwLock<Arc<Addresses>>);

impl AddressBook {
    pub fn new(addresses: Addresses) -> Self {
        Self(RwLock::new(Arc::new(addresses)))
    }

    pub fn current(&self) -> Arc<Addresses> {
        self.0.read().clone()
    }

    /// From now on viewers are sent here.
    pub fn set_playback_base(&self, base: &str) {
        let mut held = self.0.write();
        let changed = Addresses {
            playback_base: base.to_owned(),
            ..held.as_ref().clone()
        };
        *held = Arc::new(changed);
    }
}

/// Where a node is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Host name or address that encoders use.
    pub host: String,
    pub rtmp_port: Option<u16>,
    pub rtmps_port: Option<u16>,
    pub srt_port: Option<u16>,
    /// `https://…` of the origin, for WHIP.
    pub whip_base: Option<String>,
    /// `https://…` of the edges, without a slash at the end.
    pub playback_base: String,
}

impl Addresses {
    /// The server address; the stream key goes into the encoder's own field.
    pub fn rtmp_url(&self) -> Option<String> {
        self.rtmp_port
            .map(|port| format!("rtmp://{}:{port}/app", self.bracketed()))
    }

    pub fn rtmps_url(&self) -> Option<String> {
        self.rtmps_port
            .map(|port| format!("rtmps://{}:{port}/app", self.bracketed()))
    }

    pub fn srt(&self, key: &str, passphrase: &str) -> Option<String> {
        self.srt_port.map(|port| {
            format!(
                "srt://{}:{port}?streamid={key}&passphrase={passphrase}",
                self.bracketed()
            )
        })
    }

    pub fn whip(&self, key: &str) -> Option<String> {
        self.whip_base.as_ref().map(|base| format!("{base}/app/{key}/whip"))
    }

    pub fn playback(&self, path: &str) -> String {
        format!("{}{path}", self.playback_base)
    }

    fn bracketed(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        }
    }
}
