//! Who asks: a key says so, or, where there are no keys, everyone is the one tenant. Keys are held as hashes and compared in
//! constant time.

use sha2::{Digest, Sha256};
use specula_engine::Tenant;
use specula_policies::Class;
use warp::http::{HeaderMap, header};

use crate::errors::Fault;
use crate::origin::Caller;

/// What stands before a key among a WebSocket's sub-protocols: browsers can send no other header on a socket.
const KEY_PROTOCOL: &str = "key.";
/// The sub-protocol that the server speaks; a browser wants one of those it offered to be taken.
pub(crate) const PROTOCOL: &str = "specula";

/// A key that the operator gave to someone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is: 1 to 64 of a-z, 0-9 and -.
    pub owner: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Whether its answers must be the target's own text, whatever acceptance policies say.
    pub exact_only: bool,
    /// Limits that its owner's plugins may need.
    pub class: Class,
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitors {
    /// Everyone who reaches the server, as one tenant with these limits for plugins.
    Open(Class),
    /// Who has one of these keys.
    Keyed(Vec<Key>),
}

/// Someone who asks.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) tenant: Tenant,
    pub(crate) class: Class,
    /// Whether he may bring plugins and take them away.
    pub(crate) may_upload: bool,
}

impl Visitors {
    /// Lets in or not. `loopback`: only this machine reaches the server.
    pub(crate) fn judge(&self, headers: &HeaderMap, caller: &Caller, loopback: bool) -> Result<Visitor, Fault> {
        match self {
            // Without a key a page elsewhere must not leave code here, whatever else it is allowed.
            Self::Open(class) => {
                Ok(Visitor { tenant: Tenant::default(), class: *class, may_upload: loopback && *caller == Caller::Own })
            }
            Self::Keyed(keys) => {
                let given = key_of(headers).ok_or(Fault::NoKey)?;
                let hash = sha256(given.as_bytes());
                // All of them, however early one fits.
                let found =
                    keys.iter().fold(None, |found, key| if same(&key.sha256, &hash) { Some(key) } else { found });
                let Key { owner, exact_only, class, .. } = found.ok_or(Fault::WrongKey)?;
                let tenant = Tenant { owner: owner.as_str().into(), exact_only: *exact_only };
                Ok(Visitor { tenant, class: *class, may_upload: true })
            }
        }
    }
}

/// `Authorization: Bearer KEY`, or the sub-protocol `key.KEY`.
fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = given.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(key.trim());
    }
    offered(headers).find_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL))
}

/// Sub-protocols that a WebSocket's client offers.
pub(crate) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Compares all bytes, however early two differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    fn keyed() -> Visitors {
        let key = |owner: &str, key: &str, exact_only| Key {
            owner: owner.into(),
            sha256: sha256(key.as_bytes()),
            exact_only,
            class: Class::Standard,
        };
        Visitors::Keyed(vec![key("ann", "sk-1", false), key("bob", "sk-2", true)])
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a header"));
        headers
    }

    fn judge(visitors: &Visitors, headers: &HeaderMap) -> Result<(String, bool), &'static str> {
        match visitors.judge(headers, &Caller::Own, false) {
            Ok(visitor) => Ok((visitor.tenant.owner.to_string(), visitor.tenant.exact_only)),
            Err(Fault::NoKey) => Err("none"),
            Err(Fault::WrongKey) => Err("wrong"),
            Err(_) => Err("other"),
        }
    }

    #[test]
    fn a_key_says_who_asks() {
        let bearer = |value| judge(&keyed(), &headers(header::AUTHORIZATION, value));
        assert_eq!(bearer("Bearer sk-1"), Ok(("ann".into(), false)));
        assert_eq!(bearer("bearer sk-2"), Ok(("bob".into(), true)));
        for wrong in ["Bearer sk-3", "Bearer sk-1x", "Bearer "] {
            assert_eq!(bearer(wrong), Err("wrong"), "{wrong}");
        }
        for none in ["Basic sk-1", "sk-1"] {
            assert_eq!(bearer(none), Err("none"), "{none}");
        }
        assert_eq!(judge(&keyed(), &HeaderMap::new()), Err("none"));
        let socket = |value| judge(&keyed(), &headers(header::SEC_WEBSOCKET_PROTOCOL, value));
        assert_eq!(socket("specula, key.sk-2"), Ok(("bob".into(), true)));
        assert_eq!(socket("specula, key.sk-4"), Err("wrong"));
        assert_eq!(socket("specula"), Err("none"));
    }

    #[test]
    fn without_keys_only_this_machine_and_its_own_page_may_upload() {
        let open = Visitors::Open(Class::Standard);
        let may = |caller: &Caller, loopback| open.judge(&HeaderMap::new(), caller, loopback).expect("open").may_upload;
        let foreign = Caller::Configured(HeaderValue::from_static("https://lab.example"));
        assert!(may(&Caller::Own, true));
        assert!(!may(&foreign, true) && !may(&Caller::Own, false) && !may(&foreign, false));
    }
}
