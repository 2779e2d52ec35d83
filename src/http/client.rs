//! Who a request is from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::error::ApiError;
use crate::app::App;
use crate::domain::Client;

/// The other end of the connection; put in by the accept loop.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: SocketAddr,
    /// Its IP address as it is recorded and shown: once for all requests of the connection.
    shown: Arc<str>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, shown: address.ip().to_canonical().to_string().into() }
    }
}

/// The client of a request, without the id that a form may bear.
pub(super) struct RequestClient(pub(super) Client);

impl FromRequestParts<App> for RequestClient {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>().cloned();
        let peer = peer.unwrap_or_else(|| Peer::new(SocketAddr::from(([0, 0, 0, 0], 0))));
        let address = address(peer.address.ip(), &parts.headers, app.trusted_proxies());
        let is_the_peer = address == peer.address.ip().to_canonical();
        let shown = if is_the_peer { peer.shown } else { address.to_string().into() };
        let agent =
            parts.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
        Ok(Self(Client::new(shown, agent.as_deref().unwrap_or_default(), None)))
    }
}

/// The address of the client: the peer's own, or what a trusted peer says: going back through the hops that proxies
/// have written down, the first that is not a trusted proxy. What stands before it could be anybody's invention.
fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(&client) {
        return client;
    }
    for hop in hops(headers).into_iter().rev() {
        let Some(hop) = hop else { break };
        client = hop;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// The hops that proxies have written down, the nearest last. `None`: one that can't be read.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let forwarded_for = HeaderName::from_static("x-forwarded-for");
    let values = |name: &HeaderName| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .flat_map(|value| {
                String::from_utf8_lossy(value.as_bytes())
                    .split(',')
                    .map(|hop| hop.trim().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let hops = values(&forwarded_for);
    if !hops.is_empty() {
        return hops.iter().map(|hop| hop_address(hop)).collect();
    }
    // RFC 7239 §4: `for=192.0.2.60;proto=http`, `for="[2001:db8::17]:4711"`.
    let forwarded = values(&header::FORWARDED);
    let node = |element: &String| {
        element.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    forwarded.iter().map(|element| hop_address(&node(element)?)).collect()
}

fn hop_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        for (peer, header, value, expected) in [
            ("192.0.2.1", "x-forwarded-for", "198.51.100.7", "192.0.2.1"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "x-forwarded-for", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
            ("10.0.0.1", "x-forwarded-for", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.7, garbage", "10.0.0.1"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.7:443", "198.51.100.7"),
            ("::1", "x-forwarded-for", "[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:10.0.0.1", "x-forwarded-for", "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "forwarded", "for=198.51.100.7;proto=https, for=10.3.3.3", "198.51.100.7"),
            ("10.0.0.1", "forwarded", "For=\"[2001:db8::17]:4711\"", "2001:db8::17"),
            ("10.0.0.1", "forwarded", "for=unknown", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(header), HeaderValue::from_str(value).unwrap());
            let client = address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {value}");
        }
        assert_eq!(
            address("::ffff:192.0.2.9".parse().unwrap(), &HeaderMap::new(), &[]).to_string(),
            "192.0.2.9"
        );
    }
}
