//! What a server answered.

use http::HeaderMap;
use serde_json::Value;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Text of libraries, of the system and of our own inside that no client is to see.
const INSIDE: [&str; 11] = [
    "hyper",
    "multer",
    "axum",
    "tokio",
    "os error",
    "panicked",
    ".rs:",
    ".sft",
    "stream",
    "errno",
    "No such file",
];

impl Answer {
    /// Reads an answer to its end.
    pub async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        Self { status, headers, body: response.bytes().await.expect("a body").into() }
    }

    /// This answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The body of an error, which must be as every error of this server: JSON with all its members, and nothing in it
    /// of the server's inside.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str) -> Value {
        self.error_of_type("application/json", status, code)
    }

    /// The same as problem details (RFC 9457) of this type.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str, problem: &str) -> Value {
        let error = self.error_of_type("application/problem+json", status, code);
        assert_eq!(error["type"], format!("https://iana.org/assignments/http-problem-types#{problem}"));
        assert!(error["title"].is_string(), "{error}");
        error
    }

    #[track_caller]
    fn error_of_type(&self, media_type: &str, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.header("content-type")), (status, media_type), "{}", self.text());
        let error = self.json();
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["success"], false, "{error}");
        assert_eq!(error["error"], error["message"], "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{error}");
        assert_eq!(error["request_id"], self.header("x-request-id"), "{error}");
        assert!(!self.header("x-request-id").is_empty(), "{error}");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        // A media type is no inside.
        let text = self.text().replace("octet-stream", "");
        let temporary = std::env::temp_dir();
        for inside in INSIDE.iter().copied().chain(temporary.to_str()) {
            assert!(!text.contains(inside), "{inside:?} is nothing for a client: {text}");
        }
        error
    }
}
