//! TLS by certificate file, or self-signed for development. TLS 1.2 and 1.3, provider ring.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

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
    #[error("the certificate and key do not work together: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("no self-signed certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// A PEM certificate chain and its key.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(file(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.display().to_string()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(file(key))?;
    config(chain, key)
}

/// A certificate nobody trusts, for development: browsers ask before they go on.
pub fn self_signed(names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|why| rustls::Error::General(why.to_owned()))?;
    config(vec![made.cert.into()], key)
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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
}
