//! Where the server is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use reqwest::Url;

/// The address of a server: `http` or `https`, a host, a port, and a path before the server's own where a reverse proxy
/// puts one. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(Arc<Url>);

/// A text that is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no server: {why} (it takes a host, host:port or URL, such as files.example.org or http://10.0.0.5:8080)"
)]
pub struct InvalidServer {
    given: String,
    why: String,
}

impl ServerUrl {
    /// The port where neither the address nor `--port` names one.
    pub const DEFAULT_PORT: u16 = 8080;

    /// Reads a host, `host:port`, an IPv6 address (with or without brackets) or a URL.
    ///
    /// `port` wins over one in `text`. Where there is none at all, a bare host gets [`Self::DEFAULT_PORT`], a URL the port of
    /// its scheme.
    ///
    /// # Errors
    /// [`InvalidServer`] for another scheme, for no host, and for a query or a fragment.
    pub fn parse(text: &str, port: Option<u16>) -> Result<Self, InvalidServer> {
        let text = text.trim();
        let refuse = |why: &str| InvalidServer { given: text.to_owned(), why: why.to_owned() };
        let full = match text {
            "" => return Err(refuse("it is empty")),
            url if url.contains("://") => url.to_owned(),
            address if address.parse::<Ipv6Addr>().is_ok() => {
                format!("http://[{address}]:{}", Self::DEFAULT_PORT)
            }
            host if names_a_port(host) => format!("http://{host}"),
            host => {
                let (host, prefix) = host.find('/').map_or((host, ""), |slash| host.split_at(slash));
                format!("http://{host}:{}{prefix}", Self::DEFAULT_PORT)
            }
        };
        let mut url = Url::parse(&full).map_err(|error| refuse(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("the scheme is neither http nor https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it has a query or a fragment"));
        }
        if let Some(port) = port {
            url.set_port(Some(port)).map_err(|()| refuse("it takes no port"))?;
        }
        Ok(Self(Arc::new(url)))
    }

    /// The URL of an endpoint; each segment is encoded, so that a name with `/`, `?`, `#` or `%` stays one segment.
    pub fn endpoint(&self, segments: &[&str]) -> Url {
        let mut url = Url::clone(&self.0);
        // An http(s) URL always has a path: the error case ("cannot be a base") was refused by `parse`.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the server is on this machine, where a proxy makes no sense.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
    }
}

/// Whether `host[:port][/prefix]` has a port. `Url` can't be asked: it drops a port that is the scheme's own.
fn names_a_port(text: &str) -> bool {
    let authority = text.split('/').next().unwrap_or_default();
    let after_user = authority.rsplit('@').next().unwrap_or_default();
    match after_user.rsplit_once(']') {
        Some((_, after_brackets)) => after_brackets.starts_with(':'),
        None => after_user.contains(':'),
    }
}

/// Without a user name and password, for messages and logs.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = Url::clone(&self.0);
        // Both can only fail for URLs without a host.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        f.write_str(shown.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_addresses_and_urls_are_read() {
        for (text, port, shown) in [
            ("127.0.0.1", None, "http://127.0.0.1:8080"),
            ("localhost", Some(9000), "http://localhost:9000"),
            ("files.example.org:81", None, "http://files.example.org:81"),
            ("files.example.org:80", None, "http://files.example.org"),
            ("files.example.org:81", Some(82), "http://files.example.org:82"),
            ("files.example.org/sft", None, "http://files.example.org:8080/sft"),
            ("::1", None, "http://[::1]:8080"),
            ("[::1]", None, "http://[::1]:8080"),
            ("[::1]:81", None, "http://[::1]:81"),
            ("::1", Some(81), "http://[::1]:81"),
            ("http://h:1234/prefix", None, "http://h:1234/prefix"),
            ("http://h:1234/prefix/", None, "http://h:1234/prefix"),
            ("https://h", None, "https://h"),
            ("https://h", Some(8443), "https://h:8443"),
            (" h ", None, "http://h:8080"),
            ("bücher.example", None, "http://xn--bcher-kva.example:8080"),
            ("https://user:secret@h/", None, "https://h"),
        ] {
            let server = ServerUrl::parse(text, port).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(server.to_string(), shown, "{text} {port:?}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in
            ["", " ", "ftp://h", "http://", "h:port", "h:99999", "a b", "http://h/?q", "http://h/#f", "/srv"]
        {
            assert!(ServerUrl::parse(text, None).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_stays_one_segment() {
        let server = ServerUrl::parse("http://h/prefix/", None).unwrap();
        for (name, path) in [
            ("a b.txt", "/prefix/files/a%20b.txt"),
            ("100%.txt", "/prefix/files/100%25.txt"),
            ("%2e%2e%2fx", "/prefix/files/%252e%252e%252fx"),
            ("a#b&c+d;e=f.txt", "/prefix/files/a%23b&c+d;e=f.txt"),
            ("é日.txt", "/prefix/files/%C3%A9%E6%97%A5.txt"),
            ("a/b?c", "/prefix/files/a%2Fb%3Fc"),
        ] {
            assert_eq!(server.endpoint(&["files", name]).path(), path, "{name}");
        }
        assert_eq!(
            ServerUrl::parse("h", None).unwrap().endpoint(&["health"]).as_str(),
            "http://h:8080/health"
        );
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (text, loopback) in
            [("127.0.0.1", true), ("::1", true), ("LOCALHOST", true), ("10.0.0.1", false), ("h", false)]
        {
            assert_eq!(ServerUrl::parse(text, None).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
