//! Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload, interop version 8), sentence by sentence. The names of
//! sections are the draft's.

mod append;
mod broken;
mod creation;

use base64::Engine as _;
use sha2::Digest as _;

use crate::support::{Answer, TestApp};

pub const INTEROP: (&str, &str) = ("Upload-Draft-Interop-Version", "8");
pub const PARTIAL: (&str, &str) = ("Content-Type", "application/partial-upload");
pub const MORE: (&str, &str) = ("Upload-Complete", "?0");
pub const LAST: (&str, &str) = ("Upload-Complete", "?1");

/// Begins an upload without bytes; gives its path.
pub async fn begin(app: &TestApp, filename: &str, headers: &[(&str, &str)]) -> String {
    let headers = [&[MORE, INTEROP], headers].concat();
    let answer = app.send("POST", &format!("/uploads/?filename={filename}"), &headers, "").await.expect(201);
    answer.header("location").to_owned()
}

pub async fn append(
    app: &TestApp,
    path: &str,
    offset: u64,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let offset = offset.to_string();
    let headers = [&[INTEROP, PARTIAL, ("Upload-Offset", &offset)], headers].concat();
    app.send("PATCH", path, &headers, body).await
}

pub async fn head(app: &TestApp, path: &str) -> Answer {
    app.send("HEAD", path, &[INTEROP], "").await
}

pub async fn offset(app: &TestApp, path: &str) -> u64 {
    head(app, path).await.expect(204).header("upload-offset").parse().expect("an offset")
}

pub fn digest(bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes));
    format!("sha-256=:{base64}:")
}
