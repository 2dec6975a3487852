//! TLS for both doors, with certificates that may be replaced while serving.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Fault, Result};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM: the server's certificate, then what leads to its authority.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM: the authorities of clients. With it a client without a certificate of theirs is turned away.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// What both doors speak: HTTP/2 where the client can, HTTP/1.1 else.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificates in use.
pub struct Tls {
    settings: TlsSettings,
    config: ArcSwap<ServerConfig>,
    /// The files' times and lengths when they were last read.
    seen: parking_lot::Mutex<Vec<Option<(SystemTime, u64)>>>,
}

impl Tls {
    /// Reads the files. Fails, naming the file, where one is missing, is no PEM, does not fit the others, or a
    /// certificate is not valid now.
    pub fn open(settings: &TlsSettings) -> Result<Tls> {
        Ok(Tls {
            seen: parking_lot::Mutex::new(stamps(settings)),
            config: ArcSwap::new(Arc::new(load(settings)?)),
            settings: settings.clone(),
        })
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Reads the files again; connections made from now on get them. On an error the old ones stay.
    pub fn reload(&self) -> Result<()> {
        let stamps = stamps(&self.settings);
        let loaded = load(&self.settings);
        // Also after a failure: the same bad files are not reported twice.
        *self.seen.lock() = stamps;
        self.config.store(Arc::new(loaded?));
        Ok(())
    }

    /// As `reload` if a file changed since they were read; whether it did.
    pub fn reload_if_changed(&self) -> Result<bool> {
        if *self.seen.lock() == stamps(&self.settings) {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }
}

fn stamps(settings: &TlsSettings) -> Vec<Option<(SystemTime, u64)>> {
    let paths = [
        Some(&settings.certificate),
        Some(&settings.key),
        settings.client_ca.as_ref(),
    ];
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    paths.into_iter().flatten().map(stamp).collect()
}

fn load(settings: &TlsSettings) -> Result<ServerConfig> {
    let chain = certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|error| about(&settings.key, "private key", &error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::internal(format!("TLS: {error}")))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots
                    .add(authority)
                    .map_err(|error| about(path, "authority's certificate", &error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| about(path, "authority", &error))?,
            )
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let (certificate, key) = (settings.certificate.display(), settings.key.display());
        Fault::invalid(format!(
            "{certificate} and {key} do not go together: {error}"
        ))
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// A file's certificates, each valid now.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = read.map_err(|error| about(path, "certificate", &error))?;
    if found.is_empty() {
        return Err(about(path, "certificate", &"the file holds none"));
    }
    for certificate in &found {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| about(path, "certificate", &error))?;
        let validity = parsed.validity();
        if !validity.is_valid() {
            return Err(Fault::invalid(format!(
                "{}: the certificate of {} is valid from {} to {}, which is not now; renew it",
                path.display(),
                parsed.subject(),
                validity.not_before,
                validity.not_after
            )));
        }
    }
    Ok(found)
}

fn about(path: &Path, what: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::invalid(format!(
        "{}: not a {what} that can be used: {error}",
        path.display()
    ))
}
