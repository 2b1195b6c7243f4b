//! Whom to believe to be a store.
//!
//! The roots are the host's own, as `SSL_CERT_FILE` and `SSL_CERT_DIR` name them or where distributions keep them; those of
//! `X509_CERT_DIR` in addition, where grid sites have theirs; Mozilla's, carried along, where a node or container has none.

use std::env;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::Error;

/// Made once for all connections of a transfer.
pub(super) fn config() -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    // What of it cannot be read or understood is left out: one bad file in a directory of hundreds must not stop a transfer.
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if let Some(dir) = env::var_os("X509_CERT_DIR") {
        let found = rustls_native_certs::load_certs_from_paths(None, Some(Path::new(&dir)));
        roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Parameter(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
