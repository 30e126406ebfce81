//! TLS 1.2 and 1.3 by certificate files, or self-signed for development; provider ring.
//!
//! Certificates are looked up by the name the client asks for (SNI) at each handshake and can be replaced while
//! connections run: those keep what they have, new ones meet the new certificate.
//!
//! After this: `tcp.rs` and `quic.rs`, whose listeners take one [`Certificates`] each, or share it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Application protocols of a TCP listener, in the order of our preference (RFC 7301).
const TCP_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// That of a QUIC listener (RFC 9114 section 3.1).
const QUIC_PROTOCOL: &[u8] = b"h3";

/// Why TLS can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File {
        path: String,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{0}: no certificate in it")]
    Empty(String),
    #[error("{certificate}: the certificate and its key do not work together: {source}")]
    Unusable { certificate: String, source: rustls::Error },
    #[error("{certificate}: its names can't be read: {source}")]
    Names { certificate: String, source: webpki::Error },
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("no self-signed certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// PEM files: a certificate with its chain, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The certificates of a listener, by the names they are made for.
#[derive(Debug, Clone)]
pub struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.org` under `example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that name nobody, or nobody we know.
    first: Arc<CertifiedKey>,
}

impl Names {
    /// Reads all of them; the first stands in where no name fits.
    pub fn read(first: &Files, others: &[Files]) -> Result<Self, TlsError> {
        let mut names = Self::of(read(first)?);
        names.add(first)?;
        for files in others {
            names.add(files)?;
        }
        Ok(names)
    }

    /// A certificate nobody trusts, for development: browsers ask before they go on.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let made = rcgen::generate_simple_self_signed(names)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|why| rustls::Error::General(why.to_owned()))?;
        let key = CertifiedKey::from_der(vec![made.cert.into()], key, &ring::default_provider())?;
        Ok(Self::of(Arc::new(key)))
    }

    fn of(first: Arc<CertifiedKey>) -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            first,
        }
    }

    /// A name that two certificates have belongs to the first of them.
    fn add(&mut self, files: &Files) -> Result<(), TlsError> {
        let key = read(files)?;
        let path = || files.certificate.display().to_string();
        let leaf = key.end_entity_cert().map_err(|_| TlsError::Empty(path()))?;
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|source| TlsError::Names {
            certificate: path(),
            source,
        })?;
        for name in leaf.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_insert_with(|| key.clone()),
                None => self.exact.entry(name).or_insert_with(|| key.clone()),
            };
        }
        Ok(())
    }

    /// A wildcard stands for one label (RFC 6125 section 6.4.3).
    fn find(&self, asked: Option<&str>) -> Arc<CertifiedKey> {
        let found = asked.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            let exact = self.exact.get(&name);
            exact.or_else(|| self.wildcard.get(parent?)).cloned()
        });
        found.unwrap_or_else(|| self.first.clone())
    }
}

/// What a listener shows, replaceable while it runs. Clones show the same.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Shown>);

#[derive(Debug)]
struct Shown(RwLock<Arc<Names>>);

impl Certificates {
    pub fn new(names: Names) -> Self {
        Self(Arc::new(Shown(RwLock::new(Arc::new(names)))))
    }

    /// From the next handshake on.
    pub fn replace(&self, names: Names) {
        *self.0.0.write() = Arc::new(names);
    }

    /// For a TCP listener: HTTP/2 preferred, HTTP/1.1 else.
    pub fn tcp(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = self.config(rustls::DEFAULT_VERSIONS)?;
        config.alpn_protocols = TCP_PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }

    /// For a QUIC listener, which knows TLS 1.3 only (RFC 9001 section 4.2).
    pub fn quic(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = self.config(&[&rustls::version::TLS13])?;
        config.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// Sessions are resumed by tickets the client keeps: a returning viewer costs no signature and we keep nothing. No
    /// early data: it could be replayed.
    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone());
        config.ticketer = ring::Ticketer::new()?;
        Ok(config)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = self.0.read().clone();
        Some(names.find(hello.server_name()))
    }
}

/// A PEM certificate chain and its key, for a TCP listener.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let files = Files {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    Certificates::new(Names::read(&files, &[])?).tcp()
}

/// [`Names::self_signed`] for a TCP listener.
pub fn self_signed(names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    Certificates::new(Names::self_signed(names)?).tcp()
}

fn read(files: &Files) -> Result<Arc<CertifiedKey>, TlsError> {
    let file = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(file(&files.certificate))?;
    let certificate = files.certificate.display().to_string();
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(file(&files.key))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
    Ok(Arc::new(
        key.map_err(|source| TlsError::Unusable { certificate, source })?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_certificate_needs_no_files() {
        let config = self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        assert_eq!(config.alpn_protocols[0], b"h2");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = from_files(Path::new("no/such.pem"), Path::new("no/key.pem")).unwrap_err();
        assert!(error.to_string().contains("no/such.pem"));
    }

    /// Certificates in files of a folder of their own, each for these names.
    fn issued(folder: &str, certificates: &[&[&str]]) -> (PathBuf, Vec<Files>) {
        let folder = std::env::temp_dir().join(format!("weir-tls-{folder}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |(n, names): (usize, &&[&str])| {
            let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let (certificate, key) = (folder.join(format!("{n}.pem")), folder.join(format!("{n}.key")));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            Files { certificate, key }
        };
        let files = certificates.iter().enumerate().map(write).collect();
        (folder, files)
    }

    #[test]
    fn each_name_has_its_certificate_and_the_first_stands_in() {
        let (folder, files) = issued(
            "names",
            &[&["a.example"], &["b.example", "*.cdn.example"], &["c.cdn.example"]],
        );
        let names = Names::read(&files[0], &files[1..]).unwrap();
        let leaf = |n: usize| CertificateDer::from_pem_file(&files[n].certificate).unwrap();
        for (asked, shown) in [
            (Some("a.example"), 0),
            (Some("B.Example"), 1),
            (Some("any.cdn.example"), 1),
            (Some("c.cdn.example"), 2),
            // A wildcard is one label.
            (Some("two.labels.cdn.example"), 0),
            (Some("cdn.example"), 0),
            (Some("stranger.example"), 0),
            (None, 0),
        ] {
            assert_eq!(names.find(asked).cert[0], leaf(shown), "{asked:?}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let (folder, files) = issued("mixed", &[&["a.example"], &["b.example"]]);
        let mixed = Files {
            certificate: files[0].certificate.clone(),
            key: files[1].key.clone(),
        };
        let error = Names::read(&mixed, &[]).unwrap_err().to_string();
        assert!(
            error.contains("0.pem") && error.contains("do not work together"),
            "{error}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
