//! Who may talk to the server: a web page elsewhere must not drive it, nor reach it by rebinding a name to loopback.

use std::net::IpAddr;

use warp::http::{HeaderMap, HeaderValue, header};

use crate::errors::{Fault, clip};

/// The origins and hosts that a server answers to.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    /// Whether the server listens on loopback, so that only loopback names can rightly name it.
    loopback: bool,
    /// Origins the operator allows, in lower case.
    configured: Vec<String>,
}

/// Where an allowed request comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A program, or the server's own page.
    Own,
    /// A page at a configured origin, to be told by CORS headers that it may read the answer.
    Configured(HeaderValue),
}

impl Origins {
    /// # Errors
    /// Returns the first entry that is no origin (`scheme://host[:port]`).
    pub(crate) fn new(loopback: bool, allowed: &[String]) -> Result<Self, String> {
        let configured: Vec<_> = allowed.iter().map(|origin| origin.to_ascii_lowercase()).collect();
        match configured.iter().find(|origin| authority(origin).is_none()) {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(Self { loopback, configured }),
        }
    }

    /// Whether only this machine reaches the server.
    pub(crate) fn loopback(&self) -> bool {
        self.loopback
    }

    /// Decides by the headers `Host` and `Origin`. Programs send no `Origin`; without a `Host` it is no browser either.
    pub(crate) fn judge(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?").to_ascii_lowercase());
        if let Some(host) = host.as_deref().filter(|host| self.loopback && !self.names_us(host)) {
            return Err(Fault::ForeignHost(clip(host)));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(Caller::Own) };
        let text = origin.to_str().unwrap_or("?").to_ascii_lowercase();
        if self.configured.contains(&text) {
            return Ok(Caller::Configured(origin.clone()));
        }
        match host {
            Some(host) if text.strip_prefix("http://") == Some(host.as_str()) && cannot_be_rebound(&host) => {
                Ok(Caller::Own)
            }
            _ => Err(Fault::ForeignOrigin(clip(&text))),
        }
    }

    /// Whether a request to a loopback listener may bear this `Host`: loopback, or a configured origin's (a proxy's).
    fn names_us(&self, host: &str) -> bool {
        is_loopback(host) || self.configured.iter().any(|origin| authority(origin) == Some(host))
    }
}

/// The authority of a well-formed origin.
fn authority(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let well_formed = matches!(scheme, "http" | "https") && !authority.is_empty() && authority.chars().all(plain);
    well_formed.then_some(authority)
}

/// An authority that no attacker's DNS can point at us: `localhost`, or an address. (A page whose origin is an address and
/// port equal to ours was served by us.)
fn cannot_be_rebound(authority: &str) -> bool {
    let name = host_name(authority);
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

fn is_loopback(authority: &str) -> bool {
    let name = host_name(authority);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name without port and brackets.
fn host_name(authority: &str) -> &str {
    if let Some((name, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return name;
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(origins: &Origins, host: &str, origin: Option<&str>) -> Result<Caller, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).expect("a header"));
        }
        origins.judge(&headers).map_err(|fault| match fault {
            Fault::ForeignHost(_) => "host",
            Fault::ForeignOrigin(_) => "origin",
            _ => "other",
        })
    }

    #[test]
    fn on_loopback_only_loopback_names_and_the_own_page_pass() {
        let origins = Origins::new(true, &[]).expect("valid");
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert_eq!(judge(&origins, host, None), Ok(Caller::Own), "{host}");
            assert_eq!(judge(&origins, host, Some(&format!("http://{host}"))), Ok(Caller::Own), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "192.168.1.1", ""] {
            assert_eq!(judge(&origins, host, None), Err("host"), "{host}");
        }
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:8080",
            "http://localhost:8081",
            "http://localhost",
            "http://127.0.0.1:8080",
            "localhost:8080",
        ] {
            assert_eq!(judge(&origins, "localhost:8080", Some(origin)), Err("origin"), "{origin}");
        }
    }

    #[test]
    fn a_configured_origin_passes_and_its_host_names_us() {
        let origins = Origins::new(true, &["https://Lab.example".into()]).expect("valid");
        let caller = judge(&origins, "localhost:8080", Some("https://lab.example"));
        assert_eq!(caller, Ok(Caller::Configured(HeaderValue::from_static("https://lab.example"))));
        assert_eq!(judge(&origins, "lab.example", None), Ok(Caller::Own));
        assert_eq!(judge(&origins, "localhost:8080", Some("http://lab.example")), Err("origin"));
    }

    #[test]
    fn elsewhere_any_host_passes_but_a_name_is_no_own_origin() {
        let origins = Origins::new(false, &[]).expect("valid");
        assert_eq!(judge(&origins, "box.lan:8080", None), Ok(Caller::Own));
        assert_eq!(judge(&origins, "10.0.0.7:8080", Some("http://10.0.0.7:8080")), Ok(Caller::Own));
        assert_eq!(judge(&origins, "rebound.example:8080", Some("http://rebound.example:8080")), Err("origin"));
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        for wrong in ["*", "lab.example", "https://lab.example/", "https://", "ftp://x"] {
            assert_eq!(Origins::new(true, &[wrong.into()]).expect_err(wrong), wrong);
        }
    }
}
