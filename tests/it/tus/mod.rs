//! tus 1.0.0 and its extensions, sentence by sentence. The names of sections are those of
//! <https://tus.io/protocols/resumable-upload>.

mod broken;
mod concatenation;
mod core;
mod creation;

use base64::Engine as _;

use crate::support::{Answer, TestApp};

pub const VERSION: (&str, &str) = ("Tus-Resumable", "1.0.0");
pub const BYTES: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

/// The headers of every tus request and some more.
pub fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[VERSION], more].concat()
}

/// `Upload-Metadata` of these pairs.
pub fn metadata(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let pair = |(key, value): &(&str, &str)| format!("{key} {}", encode(value)).trim_end().to_owned();
    pairs.iter().map(pair).collect::<Vec<_>>().join(",")
}

pub async fn post(app: &TestApp, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
    app.send("POST", "/uploads/", &with(headers), body).await
}

/// Begins an upload of this name and these headers; gives its path.
pub async fn begin(app: &TestApp, filename: &str, headers: &[(&str, &str)]) -> String {
    let metadata = metadata(&[("filename", filename)]);
    let headers = [&[("Upload-Metadata", metadata.as_str())], headers].concat();
    let answer = post(app, &headers, "").await.expect(201);
    answer.header("location").to_owned()
}

pub async fn patch(
    app: &TestApp,
    path: &str,
    offset: u64,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let offset = offset.to_string();
    let headers = [&[VERSION, BYTES, ("Upload-Offset", &offset)], headers].concat();
    app.send("PATCH", path, &headers, body).await
}

pub async fn head(app: &TestApp, path: &str) -> Answer {
    app.send("HEAD", path, &[VERSION], "").await
}

/// The offset that HEAD tells.
pub async fn offset(app: &TestApp, path: &str) -> u64 {
    head(app, path).await.expect(200).header("upload-offset").parse().expect("an offset")
}
