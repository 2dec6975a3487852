//! Where a Redis is and how it is reached: its address, names and passwords, TLS.

use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Fault;
use crate::resp::{Stream, io};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Where Debian, Red Hat, SUSE, and Alpine and macOS keep the authorities that they trust.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub struct Place {
    host: String,
    port: u16,
    /// AUTH and SELECT, where the address says so.
    greeting: Vec<Vec<Vec<u8>>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Place {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`; `rediss://...[?ca=FILE]` with TLS, trusting the authorities of a PEM file
    /// or, without one, those that the system trusts.
    pub fn parse(address: &str) -> Result<Place, Fault> {
        let wrong = || {
            let form = "redis://[USER:PASSWORD@]HOST[:PORT][/DB] or rediss://...[?ca=FILE]";
            Fault::Store(format!("{form} is how Redis is named"))
        };
        let (address, options) = address.split_once('?').unwrap_or((address, ""));
        let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (place, db) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (place, "6379"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let options: HashMap<&str, &str> = options
            .split('&')
            .filter_map(|option| option.split_once('='))
            .collect();
        let tls = match (scheme, options.get("ca")) {
            ("redis", None) => None,
            ("rediss", ca) => Some(trusting(host, ca.map(Path::new))?),
            _ => return Err(wrong()),
        };
        let mut greeting = Vec::new();
        if let Some((user, password)) = login.split_once(':') {
            let words = [user, password].into_iter().filter(|word| !word.is_empty());
            let words = words.map(|word| word.as_bytes().to_vec());
            greeting.push([b"AUTH".to_vec()].into_iter().chain(words).collect());
        }
        if !db.is_empty() {
            db.parse::<u32>().map_err(|_| wrong())?;
            greeting.push(vec![b"SELECT".to_vec(), db.as_bytes().to_vec()]);
        }
        Ok(Place {
            host: host.to_owned(),
            port: port.parse().map_err(|_| wrong())?,
            greeting,
            tls,
        })
    }

    /// Commands that a new connection begins with.
    pub fn greeting(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        let greeting = self.greeting.iter();
        greeting.map(|words| words.iter().map(Vec::as_slice).collect())
    }

    /// A new connection; with TLS, its handshake is done.
    pub fn connect(&self) -> Result<Box<dyn Stream>, Fault> {
        let places = (self.host.as_str(), self.port).to_socket_addrs();
        let mut last = std::io::Error::other("its name has no address");
        for place in places.map_err(io)? {
            match TcpStream::connect_timeout(&place, TIMEOUT) {
                Ok(stream) => return self.wrapped(stream),
                Err(error) => last = error,
            }
        }
        Err(io(last))
    }

    fn wrapped(&self, mut stream: TcpStream) -> Result<Box<dyn Stream>, Fault> {
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
        let Some((config, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let tls = |error: String| {
            let (host, port) = (&self.host, self.port);
            Fault::Store(format!("redis: no TLS with {host}:{port}: {error}"))
        };
        let connection = ClientConnection::new(config.clone(), name.clone());
        let mut connection = connection.map_err(|error| tls(error.to_string()))?;
        while connection.is_handshaking() {
            let done = connection.complete_io(&mut stream);
            done.map_err(|error| tls(told(&error)))?;
        }
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

/// What went wrong in a handshake, as the person reads it who chose the certificates.
fn told(error: &std::io::Error) -> String {
    use rustls::{CertificateError as Wrong, Error};
    use std::io::ErrorKind::{TimedOut, UnexpectedEof, WouldBlock};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::InvalidCertificate(Wrong::UnknownIssuer)) => {
            "its certificate is of an authority that is not trusted here (?ca=FILE names another)"
                .into()
        }
        Some(Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. })) => {
            "its certificate has expired".into()
        }
        Some(Error::InvalidMessage(_)) => "what it answers is not TLS (redis:// is without)".into(),
        Some(other) => other.to_string(),
        None if error.kind() == UnexpectedEof => "it hung up (redis:// is without TLS)".into(),
        None if matches!(error.kind(), WouldBlock | TimedOut) => {
            "it does not answer (redis:// is without TLS)".into()
        }
        None => error.to_string(),
    }
}

fn trusting(
    host: &str,
    ca: Option<&Path>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Store(format!("redis: '{host}' is no name of a host")))?;
    let known = TRUSTED.iter().map(Path::new).find(|path| path.exists());
    let path = ca.or(known).ok_or_else(|| {
        Fault::Store("redis: the system has no list of trusted authorities: add ?ca=FILE".into())
    })?;
    let unread = |said: String| Fault::Store(format!("redis: ca={}: {said}", path.display()));
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unread(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| unread(e.to_string()))?;
        // Of a system's list some may be of kinds that nobody uses any more.
        let added = roots.add(certificate);
        if ca.is_some() {
            added.map_err(|e| unread(e.to_string()))?;
        }
    }
    if roots.is_empty() {
        return Err(unread("it has no certificate".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| unread(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(config), name))
}
