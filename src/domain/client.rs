//! Who is at the other end of a transfer.

use std::sync::Arc;

use serde::Serialize;

/// The client of a transfer, as it is recorded and shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Client {
    /// The address: the socket's, or what a trusted proxy says.
    #[serde(rename = "client_ip")]
    pub ip: Arc<str>,
    /// The `User-Agent` that it sent; empty if none.
    #[serde(rename = "client_agent")]
    pub agent: Box<str>,
    /// `client_id` as sent, else the address.
    #[serde(rename = "client_id")]
    pub id: Arc<str>,
}

impl Client {
    /// The most bytes of an agent or id that are kept: a client must not fill the status file with them.
    pub const MAX_TEXT: usize = 256;

    /// The client as it was recorded.
    pub(super) fn recorded(ip: Box<str>, agent: Box<str>, id: Box<str>) -> Self {
        Self::with(ip.into(), agent, id)
    }

    fn with(ip: Arc<str>, agent: Box<str>, id: Box<str>) -> Self {
        // Most clients have no id of their own: one text, not two.
        let id = if *id == *ip { Arc::clone(&ip) } else { id.into() };
        Self { ip, agent, id }
    }

    /// A client; texts are stripped of control characters and cut to [`Client::MAX_TEXT`] bytes.
    pub fn new(ip: impl Into<Arc<str>>, agent: &str, id: Option<&str>) -> Self {
        let ip = ip.into();
        let agent = bounded(agent);
        match id.map(bounded).filter(|id| !id.is_empty()) {
            Some(id) => Self::with(ip, agent, id),
            None => Self { id: Arc::clone(&ip), ip, agent },
        }
    }

    /// The same client under another id; an empty id is ignored.
    #[must_use]
    pub fn with_id(self, id: &str) -> Self {
        let id = bounded(id);
        if id.is_empty() { self } else { Self::with(self.ip, self.agent, id) }
    }
}

fn bounded(text: &str) -> Box<str> {
    let mut kept = String::with_capacity(text.len().min(Client::MAX_TEXT));
    for c in text.trim().chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > Client::MAX_TEXT {
            break;
        }
        kept.push(c);
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_in_for_an_id() {
        assert_eq!(&*Client::new("10.0.0.1", "curl/8", None).id, "10.0.0.1");
        assert_eq!(&*Client::new("10.0.0.1", "curl/8", Some("  ")).id, "10.0.0.1");
        assert_eq!(&*Client::new("10.0.0.1", "curl/8", Some("desk-7")).id, "desk-7");
        assert_eq!(&*Client::new("10.0.0.1", "", None).with_id("desk-7").id, "desk-7");
        assert_eq!(&*Client::new("10.0.0.1", "", Some("a")).with_id("").id, "a");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let client = Client::new("::1", &"é".repeat(1000), Some("a\r\nb"));
        assert_eq!(client.agent.len(), 256);
        assert_eq!(&*client.id, "ab");
    }
}
