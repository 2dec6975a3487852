//! How the doors are opened. The configuration hands this over as JSON.

use serde::Deserialize;

use crate::auth::TokenSettings;
use crate::tls::TlsSettings;
use crate::wire::Limits;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// HOST:PORT of REST; port 0: a free one.
    pub http: String,
    /// HOST:PORT of gRPC; port 0: a free one.
    pub grpc: String,
    /// Threads that read and write; models have their own.
    pub threads: usize,
    pub limits: Limits,
    /// Open at a time, both doors together; more wait to be accepted.
    pub connections: usize,
    /// HTTP/2 requests at a time on one connection.
    pub streams: u32,
    /// Bytes of bodies held at a time, of both doors together; beyond it requests are answered 429.
    pub held_bytes: usize,
    /// A connection on which nothing was asked for so long is closed; so is one whose request's head takes so long.
    pub idle_s: f64,
    /// For a body, or a TLS handshake, to arrive.
    pub arrival_s: f64,
    /// Empty: nobody is asked for one, and administration is off.
    pub tokens: Vec<TokenSettings>,
    pub tls: Option<TlsSettings>,
    /// Binds beyond loopback without tokens.
    pub insecure: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            http: "127.0.0.1:0".to_owned(),
            grpc: "127.0.0.1:0".to_owned(),
            threads: 1,
            limits: Limits::default(),
            connections: 4096,
            streams: 256,
            held_bytes: 1 << 30,
            idle_s: 75.0,
            arrival_s: 30.0,
            tokens: Vec::new(),
            tls: None,
            insecure: false,
        }
    }
}
