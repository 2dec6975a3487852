//! TLS: certificates that are wrong, swapped, or the client's.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Answer, Client, open, settings};
use crate::door::Doors;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate for localhost that ends with the year, and its key.
fn signed(by: &Authority, year: i32) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
    let key = KeyPair::generate().expect("a key");
    (
        params.signed_by(&key, &**by).expect("a certificate").pem(),
        key.serialize_pem(),
    )
}

fn write(folder: &Path, name: &str, pem: &str) -> String {
    let path = folder.join(name);
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("penstock-tls-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn ask(
    address: std::net::SocketAddr,
    trust: &Authority,
    own: Option<&(String, String)>,
) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(trust.der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = StreamOwned::new(
        connection,
        TcpStream::connect(address).expect("the door is open"),
    );
    stream
        .write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .ok()?;
    Client { stream }.answer()
}

#[test]
fn certificates_are_swapped_while_serving() {
    let folder = folder("swap");
    let (old, new) = (authority(), authority());
    let pair = signed(&old, 2900);
    let (certificate, key) = (
        write(&folder, "c.pem", &pair.0),
        write(&folder, "k.pem", &pair.1),
    );
    let tls = json!({"certificate": certificate, "key": key});
    let (address, open) = open(settings(json!({"tls": tls})));
    assert_eq!(
        ask(address, &old, None).map(|answer| answer.status),
        Some(200)
    );
    assert!(ask(address, &new, None).is_none());
    let pair = signed(&new, 2900);
    write(&folder, "c.pem", &pair.0);
    assert!(
        open.reload_certificates().is_err(),
        "the key is still the old one"
    );
    assert!(ask(address, &old, None).is_some());
    write(&folder, "k.pem", &pair.1);
    open.reload_certificates().expect("a pair");
    assert!(ask(address, &new, None).is_some());
    assert!(ask(address, &old, None).is_none());
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn clients_show_a_certificate_where_that_is_wanted() {
    let folder = folder("clients");
    let (servers, clients) = (authority(), authority());
    let pair = signed(&servers, 2900);
    let tls = json!({
        "certificate": write(&folder, "c.pem", &pair.0),
        "key": write(&folder, "k.pem", &pair.1),
        "client_ca": write(&folder, "ca.pem", &clients.pem()),
    });
    let (address, _open) = open(settings(json!({"tls": tls})));
    assert!(ask(address, &servers, None).is_none());
    assert!(ask(address, &servers, Some(&signed(&servers, 2900))).is_none());
    assert!(ask(address, &servers, Some(&signed(&clients, 2900))).is_some());
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn certificates_that_cannot_be_used_are_said_at_once() {
    let folder = folder("bad");
    let authority = authority();
    let expired = signed(&authority, 2001);
    let (certificate, key) = (
        write(&folder, "c.pem", &expired.0),
        write(&folder, "k.pem", &expired.1),
    );
    let refused = |tls: serde_json::Value| {
        Doors::bind(settings(json!({"tls": tls})))
            .err()
            .expect("a refusal")
            .message
    };
    let message = refused(json!({"certificate": certificate, "key": key}));
    assert!(
        message.contains("c.pem") && message.contains("2001"),
        "{message}"
    );
    let message = refused(json!({"certificate": "/nowhere.pem", "key": key}));
    assert!(message.contains("/nowhere.pem"), "{message}");
    let good = signed(&authority, 2900);
    let certificate = write(&folder, "c.pem", &good.0);
    assert!(
        refused(json!({"certificate": certificate, "key": certificate}))
            .contains("c.pem: not a private key")
    );
    assert!(
        refused(json!({"certificate": certificate, "key": key})).contains("do not go together")
    );
    std::fs::remove_dir_all(folder).expect("ours");
}
