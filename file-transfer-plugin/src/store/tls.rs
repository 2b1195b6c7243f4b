//! Certificates, read again when their files change.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::error::StoreError;
use super::watched::Watched;

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate and those above it, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// Answers each handshake with the certificate of the day.
struct Current(Watched<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.get()))
    }
}

/// What makes TLS of a connection.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, StoreError> {
    let files = [config.certificate.as_path(), config.key.as_path()];
    let current = Arc::new(Current(Watched::open(&files, parse)?));
    let provider = Arc::new(ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has all that these versions need")
        .with_no_client_auth()
        .with_cert_resolver(current);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn parse(files: &[Vec<u8>]) -> Result<Arc<CertifiedKey>, String> {
    let [certificate, key] = files else {
        return Err("a certificate and a key are needed".into());
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no certificate in PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in it".into());
    }
    // What is wrong with a key is said without quoting any of it.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "its key is no key in PEM")?;
    let key = ring::sign::any_supported_type(&key).map_err(|_| "its key is of an unknown kind")?;
    let both = CertifiedKey::new(chain, key);
    both.keys_match()
        .map_err(|_| "it does not belong to the key")?;
    Ok(Arc::new(both))
}
