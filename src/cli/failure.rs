//! What went wrong, for a person and for a program.

use std::fmt;
use std::io;

use serde_json::{Map, Value, json};

use super::output::{bytes, printable};
use crate::app::StartError;
use crate::client::{DownloadError, Error, InvalidServer, Refusal, Unreachable, UploadError};
use crate::store::lock::LockError;
use crate::store::status::OpenError;

/// Why a command ends with another exit status than 0.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    code: String,
    message: String,
    /// What can be done about it.
    hint: Option<String>,
    /// What the server said, if it did.
    members: Map<String, Value>,
    exit: u8,
    silent: bool,
}

impl Failure {
    /// Exit status 1. `code` is stable, for programs.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        let (hint, members) = (None, Map::new());
        Self { code: code.to_owned(), message: message.into(), hint, members, exit: 1, silent: false }
    }

    /// Ctrl-C: exit status 1, as of everything that was not done.
    pub(super) fn interrupted(hint: Option<String>) -> Self {
        Self { hint, ..Self::new("interrupted", "interrupted") }
    }

    /// Content could not be written to where it was to go.
    pub(super) fn of_writing(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new("disk_full", format!("cannot write: {error}"))
            }
            _ => Self::new("cannot_write", format!("cannot write: {error}")),
        }
    }

    /// Who reads the output has gone: there is nobody to tell.
    pub(super) fn silent() -> Self {
        Self { silent: true, ..Self::new("output_closed", "the output was closed") }
    }

    /// Exit status 2: what was typed or set can't be used.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: 2, ..Self::new("usage", message) }
    }

    /// With what was found out, for programs.
    pub(super) fn with_members(self, members: Value) -> Self {
        match members {
            Value::Object(members) => Self { members, ..self },
            _ => self,
        }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn exit(&self) -> u8 {
        self.exit
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether it has nothing to do with the file that it is about: every other one would fail the same way.
    pub(super) fn concerns_all(&self) -> bool {
        const OF_THE_SERVER: [&str; 6] = [
            "api_key_required",
            "insufficient_scope",
            "invalid_api_key",
            "setup_failed",
            "tls_failed",
            "unreachable",
        ];
        OF_THE_SERVER.contains(&self.code.as_str())
    }

    /// The server's own answer where there is one, with the members that every failure has.
    pub(super) fn to_json(&self) -> Value {
        let mut members = self.members.clone();
        members.insert("success".to_owned(), json!(false));
        for (member, text) in [("error", &self.message), ("message", &self.message), ("code", &self.code)] {
            members.entry(member).or_insert_with(|| json!(text));
        }
        if let Some(hint) = &self.hint {
            members.insert("hint".to_owned(), json!(hint));
        }
        Value::Object(members)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&self.message))?;
        let text = |member| self.members.get(member).and_then(Value::as_str).map(printable);
        let code = text("code");
        // Without a code, the message is the status.
        let status = code.is_some().then(|| self.members.get("http_status")).flatten();
        let status = status.map(|status| format!("HTTP {status}"));
        let request = text("request_id").map(|id| format!("request {id}"));
        let details: Vec<String> = [status, code, request].into_iter().flatten().collect();
        if !details.is_empty() {
            write!(f, " ({})", details.join(", "))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<InvalidServer> for Failure {
    fn from(error: InvalidServer) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Lock(error) | StartError::Status(OpenError::Lock(error)) => error.into(),
            StartError::Keys(error) => Self::usage(format!("cannot use the encryption key: {error}")),
            StartError::Storage { .. } | StartError::Status(_) => {
                Self::new("storage_failed", error.to_string())
            }
            StartError::Threads(_) => Self::new("internal", error.to_string()),
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let message = error.to_string();
        match error {
            LockError::Taken { .. } => Self::new("in_use", message)
                .with_hint("this needs the directory for itself; a running server verifies its files with SCRUB_INTERVAL"),
            LockError::Io { .. } => Self::new("storage_failed", message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Refused(refusal) => Self::from(*refusal),
            Error::Unreachable { why: Unreachable::Tls(_), .. } => Self::new("tls_failed", message).with_hint(
                "does the server speak https on this port? SSL_CERT_FILE names a file of certificates to trust",
            ),
            Error::Unreachable { why, .. } => {
                let failure = Self::new("unreachable", message);
                match why {
                    Unreachable::Refused => {
                        failure.with_hint("sft serve starts one; --server and --port say where it is")
                    }
                    _ => failure,
                }
            }
            Error::TimedOut { .. } => Self::new("timeout", message),
            Error::Broken { .. } => Self::new("connection_broken", message),
            Error::Unexpected { .. } => Self::new("unexpected_answer", message),
            Error::Setup(_) => Self::new("setup_failed", message),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code.clone().unwrap_or_else(|| format!("http_{}", refusal.status.as_u16()));
        let mut members = refusal.members;
        members.insert("http_status".to_owned(), json!(refusal.status.as_u16()));
        let hint = match (refusal.status.as_u16(), refusal.max_size, &refusal.code) {
            (401, ..) => Some("give a key with --api-key or in the environment variable API_KEY".to_owned()),
            (403, ..) => Some("check the key that --api-key or API_KEY gives, and what it may do".to_owned()),
            (413, Some(most), _) => Some(format!("this server takes files of at most {}", bytes(most))),
            (413, None, None) => Some("a proxy before the server may have a limit of its own".to_owned()),
            (409, _, Some(code)) if code == "chunk_conflict" => Some(
                "an upload of this name with other content is not complete; give another --filename, or wait until it has \
                 expired"
                    .to_owned(),
            ),
            (404, _, None) => Some("is that an sft server, and the path before its own right?".to_owned()),
            _ => None,
        };
        Self { hint, members, ..Self::new(&code, refusal.error) }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Exchange(error) => error.into(),
            UploadError::Read { .. } => Self::new("cannot_read", message),
            UploadError::NotAFile(_) => Self::new("not_a_file", message),
            UploadError::Shrunk(_) | UploadError::Changed(_) => Self::new("file_changed", message),
            UploadError::Incomplete => Self::new("incomplete", message),
            UploadError::TooManyChunks { .. } => Self::new("too_many_chunks", message),
            UploadError::Mismatch { .. } => Self::new("checksum_mismatch", message),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        const ROOM: &str = "make room, or choose another place with --output; a download to a file then goes on where it stopped";
        let message = error.to_string();
        match error {
            DownloadError::Exchange(error) => error.into(),
            DownloadError::Write { source, .. } => match source.kind() {
                io::ErrorKind::BrokenPipe => Self::silent(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::new("disk_full", message).with_hint(ROOM)
                }
                _ => Self::new("cannot_write", message),
            },
            DownloadError::NoRoom { missing, .. } => {
                Self::new("disk_full", message).with_hint(format!("{} are needed; {ROOM}", bytes(missing)))
            }
            DownloadError::Busy(_) => Self::new("busy", message),
            DownloadError::NotAFile(_) => Self::new("not_a_file", message),
            DownloadError::Mismatch { .. } => Self::new("checksum_mismatch", message).with_hint(
                "nothing of it is kept; try again, and if it stays so, the server's copy is damaged",
            ),
            DownloadError::Changed => Self::new("file_changed", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::client::ServerUrl;

    fn refusal(status: u16, members: Value) -> Failure {
        let Value::Object(members) = members else { panic!("no object") };
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        Failure::from(Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            error: text("error").unwrap_or_default(),
            code: text("code"),
            request_id: text("request_id"),
            max_size: members.get("max_size").and_then(Value::as_u64),
            retry_after: None,
            members,
        })
    }

    #[test]
    fn a_refusal_says_what_the_server_says_and_what_to_do() {
        let members = json!({"success": false, "error": "the file is too large", "code": "file_too_large",
            "request_id": "r-1", "max_size": 104_857_600});
        let shown = refusal(413, members).to_string();
        assert_eq!(
            shown,
            "error: the file is too large (HTTP 413, file_too_large, request r-1)\n\
             hint: this server takes files of at most 100.00 MiB"
        );
        let keyless =
            refusal(401, json!({"error": "this needs a key", "code": "api_key_required"})).to_string();
        assert!(keyless.contains("this needs a key") && keyless.contains("--api-key"), "{keyless}");
    }

    #[test]
    fn an_unreachable_server_is_told_so() {
        let server = ServerUrl::parse("127.0.0.1", None).unwrap();
        let failure = Failure::from(Error::Unreachable { server, why: Unreachable::Refused });
        let first = "error: cannot reach http://127.0.0.1:8080: connection refused; is the server running?";
        assert_eq!(failure.to_string().lines().next(), Some(first));
    }

    #[test]
    fn programs_get_the_servers_members_and_a_code() {
        let json = refusal(507, json!({"success": false, "error": "full", "code": "storage_full", "x": 1}))
            .to_json();
        assert_eq!(
            (&json["code"], &json["http_status"], &json["x"]),
            (&json!("storage_full"), &json!(507), &json!(1))
        );
        let json = Failure::interrupted(None).to_json();
        assert_eq!((&json["success"], &json["code"]), (&json!(false), &json!("interrupted")));
    }
}
