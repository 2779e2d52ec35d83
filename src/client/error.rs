//! What can go wrong between a client and its server.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::ServerUrl;
use super::retry::{Retryable, Verdict, verdict_on};

/// A request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot reach {server}: {why}")]
    Unreachable {
        /// The server.
        server: ServerUrl,
        /// Why not.
        why: Unreachable,
    },
    /// Nothing moved for too long.
    #[error("{server} has not {awaited} for {} s", after.as_secs())]
    TimedOut {
        /// The server.
        server: ServerUrl,
        /// What it should have done: "answered", "taken any data", "sent any data".
        awaited: &'static str,
        /// How long that was waited for.
        after: Duration,
    },
    /// The connection ended before the answer was complete.
    #[error("the connection to {server} broke: {detail}")]
    Broken {
        /// The server.
        server: ServerUrl,
        /// How.
        detail: String,
    },
    /// The server refused, in the words of the contract.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The answer is not what the contract says: another kind of server, or a proxy before it.
    #[error("{server} answered, but not as an sft server does: {detail}")]
    Unexpected {
        /// The server.
        server: ServerUrl,
        /// What it was.
        detail: String,
    },
    /// The client itself could not be made.
    #[error("{0}")]
    Setup(String),
}

/// Why no connection could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nothing listens there.
    #[error("connection refused; is the server running?")]
    Refused,
    /// The name of the host is not known.
    #[error("the host name cannot be resolved; is it spelled right?")]
    UnknownHost,
    /// No answer to the attempt to connect.
    #[error("the connection was not accepted in time; is a firewall in between?")]
    TimedOut,
    /// TLS could not be agreed on: the wrong protocol, or a certificate that is not trusted.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// An answer that says no.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The sentence for a person.
    pub error: String,
    /// The code for a program; `None` where the answer did not follow the contract.
    pub code: Option<String>,
    /// What the server's log has it under.
    pub request_id: Option<String>,
    /// The most bytes that the server takes, where it said so.
    pub max_size: Option<u64>,
    /// How long to wait, from when the answer came.
    pub retry_after: Option<Duration>,
    /// All members of the answer.
    pub members: Map<String, Value>,
}

impl Refusal {
    /// Makes one of an answer's status and JSON body. A body that is no JSON object (a proxy's page, or cut off) leaves
    /// the status to speak for itself.
    pub(super) fn new(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let members = serde_json::from_slice::<Map<String, Value>>(body).unwrap_or_default();
        let text = |member: &str| members.get(member).and_then(Value::as_str).map(str::to_owned);
        Self {
            status,
            error: text("error")
                .or_else(|| text("message"))
                .unwrap_or_else(|| format!("the server answered {status}")),
            code: text("code"),
            request_id: text("request_id"),
            max_size: members.get("max_size").and_then(Value::as_u64),
            retry_after,
            members,
        }
    }

    /// Whether its code is this.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl Error {
    /// Sorts an error of the HTTP library. `awaited` is what the server should have done (for a timeout).
    pub(super) fn of(server: &ServerUrl, error: reqwest::Error) -> Self {
        let server = server.clone();
        let error = error.without_url();
        let io = find::<io::Error>(&error).map(io::Error::kind);
        let why = if error.is_builder() {
            return Self::Setup(deepest(&error));
        } else if let Some(tls) = find::<rustls::Error>(&error) {
            Unreachable::Tls(tls.to_string())
        } else if !error.is_connect() {
            return Self::Broken { server, detail: describe(io, &error) };
        } else if error.is_dns() {
            Unreachable::UnknownHost
        } else if io == Some(io::ErrorKind::ConnectionRefused) {
            Unreachable::Refused
        } else if error.is_timeout() {
            Unreachable::TimedOut
        } else {
            Unreachable::Other(describe(io, &error))
        };
        Self::Unreachable { server, why }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl Retryable for Error {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { why: Unreachable::Tls(_), .. } | Self::Unexpected { .. } | Self::Setup(_) => {
                Verdict::Final
            }
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => {
                Verdict::Again { after: None }
            }
            // Damage does not pass.
            Self::Refused(refusal) if refusal.is("decryption_failed") => Verdict::Final,
            Self::Refused(refusal) => verdict_on(refusal.status, refusal.retry_after),
        }
    }
}

/// The first `T` among an error and its causes. What an [`io::Error`] was made of is no cause of it
/// ([`StdError::source`] skips it), so that it is asked for by itself.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find::<T>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn describe(io: Option<io::ErrorKind>, error: &reqwest::Error) -> String {
    match io {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "it was closed at the other end".to_owned()
        }
        Some(io::ErrorKind::HostUnreachable) => "no route to the host".to_owned(),
        Some(io::ErrorKind::NetworkUnreachable) => "the network cannot be reached".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) => "it ended too early".to_owned(),
        _ => deepest(error),
    }
}

/// The innermost cause: the outer ones only say "error sending request".
fn deepest(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::new(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn a_refusal_reads_the_contract_and_survives_everything_else() {
        let told = refusal(
            413,
            r#"{"success":false,"error":"too big","code":"file_too_large","request_id":"r1","max_size":5}"#,
        );
        assert_eq!((told.error.as_str(), told.max_size), ("too big", Some(5)));
        assert!(told.is("file_too_large"));
        assert_eq!(told.request_id.as_deref(), Some("r1"));
        for body in ["", "<html>", "[]", "null", r#"{"error":7}"#, r#"{"err"#] {
            assert_eq!(refusal(502, body).error, "the server answered 502 Bad Gateway", "{body}");
        }
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = io::Error::other(tls);
        assert_eq!(find::<rustls::Error>(&outer), Some(&rustls::Error::DecryptError));
        assert_eq!(find::<rustls::Error>(&io::Error::other("x")), None);
    }
}
