//! Who may do what: bearer tokens, kept as SHA-256, swapped while serving.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Fault, Kind, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Score, and see metadata and statistics.
    Infer,
    /// Load and unload, and see metadata and statistics.
    Admin,
    /// Read `/metrics` and statistics.
    Metrics,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Scope::Infer => "infer",
            Scope::Admin => "admin",
            Scope::Metrics => "metrics",
        }
    }
}

/// A token as the configuration holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Who has it, for messages.
    pub name: String,
    /// SHA-256 of the token, 64 hex digits.
    pub sha256: String,
    pub scopes: Vec<Scope>,
    /// None: all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

#[derive(Debug)]
pub struct Token {
    name: String,
    digest: [u8; 32],
    scopes: Vec<Scope>,
    models: Option<Vec<String>>,
}

/// What a caller was found to be.
#[derive(Clone, Debug)]
pub enum Grant {
    /// No tokens are configured: everything but administration.
    Open,
    Token(Arc<Token>),
}

/// The tokens there are.
pub struct Gate {
    tokens: ArcSwap<Vec<Arc<Token>>>,
}

impl Gate {
    /// Fails with the token whose hash is none.
    pub fn new(tokens: &[TokenSettings]) -> Result<Gate> {
        Ok(Gate {
            tokens: ArcSwap::from_pointee(parse(tokens)?),
        })
    }

    /// Requests from now on are judged by these. On an error the old ones stay.
    pub fn swap(&self, tokens: &[TokenSettings]) -> Result<()> {
        self.tokens.store(Arc::new(parse(tokens)?));
        Ok(())
    }

    /// Whose request this is, by its `Authorization` header.
    pub fn grant(&self, authorization: Option<&[u8]>) -> Result<Grant> {
        let tokens = self.tokens.load();
        if tokens.is_empty() {
            return Ok(Grant::Open);
        }
        let bearer = authorization.and_then(bearer).ok_or_else(|| {
            Fault::new(
                Kind::Unauthenticated,
                "no bearer token: send the header Authorization: Bearer TOKEN",
            )
        })?;
        let digest: [u8; 32] = Sha256::digest(bearer).into();
        // Every token is compared in full, so that time tells nothing about any.
        let mut found = None;
        for token in tokens.iter() {
            let differs = digest
                .iter()
                .zip(&token.digest)
                .fold(0, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(token);
            }
        }
        let found = found.ok_or_else(|| {
            Fault::new(Kind::Unauthenticated, "this bearer token is not known here")
        })?;
        Ok(Grant::Token(Arc::clone(found)))
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn parse(tokens: &[TokenSettings]) -> Result<Vec<Arc<Token>>> {
    let parsed = tokens.iter().map(|token| {
        let digest = digest(&token.sha256).ok_or_else(|| {
            let text = format!(
                "token '{}': sha256 must be 64 hex digits, the SHA-256 of the token",
                token.name
            );
            Fault::invalid(text)
        })?;
        Ok(Arc::new(Token {
            name: token.name.clone(),
            digest,
            scopes: token.scopes.clone(),
            models: token.models.clone(),
        }))
    });
    parsed.collect()
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let mut digest = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Some(digest)
}

impl Token {
    fn covers(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|name| name == model))
    }
}

impl Grant {
    /// Fails with `Denied` unless the caller has this scope for this model (None: for all of them).
    pub fn may(&self, scope: Scope, model: Option<&str>) -> Result<()> {
        let denied = |text: String| Err(Fault::new(Kind::Denied, text));
        match self {
            Grant::Open if scope == Scope::Admin => {
                denied("load and unload are off: the server has no tokens configured".to_owned())
            }
            Grant::Open => Ok(()),
            Grant::Token(token) if !token.scopes.contains(&scope) => denied(format!(
                "token '{}' does not have the scope '{}'",
                token.name,
                scope.name()
            )),
            Grant::Token(token) => match model {
                Some(model) if !token.covers(model) => {
                    denied(format!("token '{}' is not for model '{model}'", token.name))
                }
                None if token.models.is_some() => {
                    denied(format!("token '{}' is not for all models", token.name))
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether the caller may know of this model.
    pub fn sees(&self, model: &str) -> bool {
        match self {
            Grant::Open => true,
            Grant::Token(token) => token.covers(model),
        }
    }

    /// As `sees`, as a fault.
    pub fn look(&self, model: &str) -> Result<()> {
        match self {
            Grant::Token(token) if !token.covers(model) => {
                let text = format!("token '{}' is not for model '{model}'", token.name);
                Err(Fault::new(Kind::Denied, text))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        name: &str,
        token: &str,
        scopes: &[Scope],
        models: Option<&[&str]>,
    ) -> TokenSettings {
        let sha256 = Sha256::digest(token)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let models = models.map(|models| models.iter().map(|name| (*name).to_owned()).collect());
        TokenSettings {
            name: name.to_owned(),
            sha256,
            scopes: scopes.to_vec(),
            models,
        }
    }

    fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
        result.unwrap_err().kind
    }

    #[test]
    fn without_tokens_all_but_administration_is_open() {
        let grant = Gate::new(&[]).unwrap().grant(None).unwrap();
        assert!(
            grant.may(Scope::Infer, Some("ctr")).is_ok() && grant.may(Scope::Metrics, None).is_ok()
        );
        assert_eq!(kind(grant.may(Scope::Admin, Some("ctr"))), Kind::Denied);
        assert!(grant.sees("ctr"));
    }

    #[test]
    fn a_token_opens_its_scopes_and_models_alone() {
        let gate = Gate::new(&[
            settings("ads", "a-secret", &[Scope::Infer], Some(&["ctr"])),
            settings("ops", "b-secret", &[Scope::Admin, Scope::Metrics], None),
        ])
        .unwrap();
        let ads = gate.grant(Some(b"Bearer a-secret")).unwrap();
        assert!(ads.may(Scope::Infer, Some("ctr")).is_ok());
        assert_eq!(kind(ads.may(Scope::Infer, Some("cvr"))), Kind::Denied);
        assert_eq!(kind(ads.may(Scope::Admin, Some("ctr"))), Kind::Denied);
        assert_eq!(kind(ads.look("cvr")), Kind::Denied);
        let ops = gate.grant(Some(b"bearer  b-secret")).unwrap();
        assert!(
            ops.may(Scope::Admin, Some("cvr")).is_ok() && ops.may(Scope::Metrics, None).is_ok()
        );
        assert_eq!(kind(ops.may(Scope::Infer, Some("ctr"))), Kind::Denied);
    }

    #[test]
    fn what_is_no_known_token_is_unauthenticated() {
        let gate = Gate::new(&[settings("ads", "a-secret", &[Scope::Infer], None)]).unwrap();
        for header in [
            None,
            Some(&b"Bearer other"[..]),
            Some(b"Basic a-secret"),
            Some(b"Bearer "),
            Some(b""),
        ] {
            assert_eq!(kind(gate.grant(header)), Kind::Unauthenticated);
        }
    }

    #[test]
    fn a_swap_takes_effect_and_a_bad_one_changes_nothing() {
        let gate = Gate::new(&[settings("ads", "old", &[Scope::Infer], None)]).unwrap();
        gate.swap(&[settings("ads", "new", &[Scope::Infer], None)])
            .unwrap();
        assert!(
            gate.grant(Some(b"Bearer old")).is_err() && gate.grant(Some(b"Bearer new")).is_ok()
        );
        let bad = TokenSettings {
            sha256: "12".to_owned(),
            ..settings("x", "x", &[], None)
        };
        assert!(gate.swap(&[bad]).unwrap_err().message.contains("'x'"));
        assert!(gate.grant(Some(b"Bearer new")).is_ok());
    }
}
