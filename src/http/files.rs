//! Giving files: `GET|HEAD /files/{filename}`, `GET|HEAD /download/{filename}`.

use std::time::{Duration, Instant, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use super::client::RequestClient;
use super::conditional::{self, Validators, Verdict};
use super::edge::RequestId;
use super::error::ApiError;
use super::extract::{self, Name};
use super::file_body::{FileBody, Observer, Segment};
use super::options;
use super::range::{self, Selection};
use crate::app::App;
use crate::domain::{Client, FileName, parse_boolean};
use crate::events::RunningDownload;
use crate::services::downloads::{Content, Download, DownloadError, Wanted};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Whether a browser is to show the file or to save it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    Attachment,
    InlineWhereSafe,
}

/// What every download is asked with.
pub(super) struct Asked {
    head: Parts,
    client: RequestClient,
    id: RequestId,
    name: Name,
}

/// `GET|HEAD /download/{filename}`: the file as an attachment.
pub(super) async fn download(
    State(app): State<App>,
    client: RequestClient,
    Extension(id): Extension<RequestId>,
    name: Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, _) = request.into_parts();
    give(&app, Asked { head, client, id, name }, Disposition::Attachment).await
}

/// `GET|HEAD /files/{filename}`: the file, shown by a browser where that is safe.
pub(super) async fn show(
    State(app): State<App>,
    client: RequestClient,
    Extension(id): Extension<RequestId>,
    name: Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, _) = request.into_parts();
    give(&app, Asked { head, client, id, name }, Disposition::InlineWhereSafe).await
}

async fn give(app: &App, asked: Asked, disposition: Disposition) -> Result<Response, ApiError> {
    let Name(filename) = &asked.name;
    let wanted = wanted(asked.head.uri.query().unwrap_or_default())?;
    let download = match app.downloads().open(filename, wanted).await {
        Ok(download) => download,
        Err(error) => return Err(refuse(app, &asked, error).await),
    };
    let validators = validators(&download);
    let headers = headers(&download, &validators, disposition);
    let ranges = match conditional::evaluate(&asked.head.headers, &validators) {
        Verdict::Failed => return Err(ApiError::precondition_failed()),
        Verdict::NotModified => return Ok(not_modified(headers)),
        // RFC 9110 §14.2: ranges are for GET.
        Verdict::Send { ranges } => ranges && asked.head.method == Method::GET,
    };
    let length = download.file.size;
    let header = asked.head.headers.get(RANGE).filter(|_| ranges).and_then(|value| value.to_str().ok());
    let selection = range::select(header, length);
    if asked.head.method == Method::HEAD {
        return Ok(respond(StatusCode::OK, headers, length, Body::empty()));
    }
    let (status, extra, segments) = match selection {
        Selection::Unsatisfiable => return Err(ApiError::range_not_satisfiable(length)),
        Selection::Whole => (StatusCode::OK, HeaderMap::new(), vec![Segment::File(0..length)]),
        Selection::Parts(parts) => partial(parts, length, &headers),
    };
    let first = match first_piece(&download.content, &segments).await {
        Ok(first) => first,
        Err(error) => return Err(refuse(app, &asked, error).await),
    };
    let log = Log {
        app: app.clone(),
        filename: filename.clone(),
        client: asked.client.0,
        failure: None,
        request: asked.id,
        begun: Instant::now(),
        bytes: 0,
        expected: 0,
        shown: None,
    };
    let mut body = FileBody::new(download.content, segments, first, log);
    body.expect_all();
    let log = body.observer_mut();
    log.shown = app.hub().download(&log.filename, &log.client, download.checksum, log.expected);
    let length = body.remaining();
    let mut response = respond(status, headers, length, Body::new(body));
    response.headers_mut().extend(extra);
    Ok(response)
}

/// Whoever is told that a file is damaged finds it so in the status.
async fn refuse(app: &App, asked: &Asked, error: DownloadError) -> ApiError {
    let Name(filename) = &asked.name;
    if let DownloadError::Decryption(_) = error {
        app.downloads().record_damage(filename, asked.client.0.clone(), &error.to_string());
        app.status().settled().await;
    }
    ApiError::download(&error, filename.as_str())
}

/// `decrypt=false` asks for the container of a sealed file.
fn wanted(query: &str) -> Result<Wanted, ApiError> {
    let mut wanted = Wanted::Content;
    for (name, value) in options::pairs(query) {
        let value = value.unwrap_or_default();
        if name == "decrypt" && !value.is_empty() {
            let decrypt = parse_boolean(&value)
                .map_err(|error| ApiError::bad_request("invalid_decrypt", format!("decrypt: {error}")))?;
            wanted = if decrypt { Wanted::Content } else { Wanted::Stored };
        }
    }
    Ok(wanted)
}

/// Opens the beginning of what is asked for of a sealed file: where it has been tampered with, the answer must be an
/// error and not the beginning of a file.
async fn first_piece(content: &Content, segments: &[Segment]) -> Result<Option<Bytes>, DownloadError> {
    let Content::Sealed(sealed) = content else { return Ok(None) };
    let first = segments.iter().find_map(|segment| match segment {
        Segment::File(range) if !range.is_empty() => Some(range.clone()),
        _ => None,
    });
    let Some(range) = first else { return Ok(None) };
    let sealed = std::sync::Arc::clone(sealed);
    let read = tokio::task::spawn_blocking(move || sealed.read(range)).await;
    match read.map_err(std::io::Error::other).and_then(|read| read) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(DownloadError::Decryption(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The SHA-256 is the entity tag: strong, and the same after a restore from a copy. A file whose digest is not known has a
/// weak one (RFC 9110 §8.8.1): its size and time.
fn validators(download: &Download) -> Validators {
    let stored = &download.file;
    let modified = stored.modified.to_system_time();
    let etag = match (&download.checksum, &download.container) {
        (Some(checksum), _) => ["\"", &checksum.to_string(), "\""].concat(),
        // Two containers differ in these, whatever they hold.
        (None, Some(seal)) => format!("\"{}-{}\"", seal.nonce, seal.tag),
        (None, None) => {
            let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            format!("W/\"{:x}-{:x}\"", stored.size, since.as_nanos())
        }
    };
    Validators { etag, modified }
}

fn headers(download: &Download, validators: &Validators, disposition: Disposition) -> HeaderMap {
    let (media_type, safe) = match download.container {
        None => media_type(&download.filename),
        Some(_) => ("application/octet-stream", false),
    };
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The answer may be kept, but must be asked after: the next upload of the name is another file.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let mut put = |name: HeaderName, value: String| {
        // None of these holds a character that a header can't.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    put(ETAG, validators.etag.clone());
    put(LAST_MODIFIED, httpdate::fmt_http_date(validators.modified));
    if let Some(checksum) = &download.checksum {
        put(REPR_DIGEST, options::encode_digest(checksum));
    }
    let inline = disposition == Disposition::InlineWhereSafe && safe;
    put(CONTENT_DISPOSITION, content_disposition(&download.filename, inline));
    if inline {
        // Whatever the file holds, it runs no script and fetches nothing in the name of this server.
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'",
            ),
        );
    }
    headers
}

/// The media type by the name's extension, and whether a browser may show it: nothing that can hold a script.
fn media_type(filename: &FileName) -> (&'static str, bool) {
    let guess = mime_guess::from_path(filename.as_str()).first_raw().unwrap_or("application/octet-stream");
    match guess {
        "text/html"
        | "application/xhtml+xml"
        | "image/svg+xml"
        | "text/xml"
        | "application/xml"
        | "text/javascript"
        | "application/javascript"
        | "text/css" => (guess, false),
        "text/plain" => ("text/plain; charset=utf-8", true),
        "text/csv" => ("text/csv; charset=utf-8", true),
        "text/markdown" => ("text/markdown; charset=utf-8", true),
        "application/json" | "application/pdf" => (guess, true),
        _ if ["image/", "audio/", "video/"].iter().any(|kind| guess.starts_with(kind)) => (guess, true),
        _ => (guess, false),
    }
}

/// RFC 6266: `filename` for old clients, in ASCII; `filename*` (RFC 8187) with the name as it is.
fn content_disposition(filename: &FileName, inline: bool) -> String {
    let kind = if inline { "inline" } else { "attachment" };
    let name = filename.as_str();
    let is_plain = |c: char| c.is_ascii() && c != '"' && c != '\\' && c != '%';
    if name.chars().all(is_plain) {
        return [kind, "; filename=\"", name, "\""].concat();
    }
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{}", extract::encode_component(name))
}

fn not_modified(mut headers: HeaderMap) -> Response {
    // RFC 9110 §15.4.5: what a cache needs; what describes a body is left out.
    for name in [CONTENT_TYPE, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY] {
        headers.remove(name);
    }
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

fn respond(status: StatusCode, headers: HeaderMap, length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// The segments of a 206: one range as it is, several as `multipart/byteranges` (RFC 9110 §14.6).
fn partial(
    parts: Vec<std::ops::Range<u64>>,
    length: u64,
    headers: &HeaderMap,
) -> (StatusCode, HeaderMap, Vec<Segment>) {
    let mut extra = HeaderMap::new();
    let content_range =
        |part: &std::ops::Range<u64>| format!("bytes {}-{}/{length}", part.start, part.end - 1);
    if let [part] = parts.as_slice() {
        if let Ok(value) = HeaderValue::from_str(&content_range(part)) {
            extra.insert(CONTENT_RANGE, value);
        }
        return (StatusCode::PARTIAL_CONTENT, extra, vec![Segment::File(part.clone())]);
    }
    // It must not occur in the file; 128 random bits don't.
    let boundary = format!("sft-{}", crate::domain::TransferId::new());
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut segments = Vec::with_capacity(parts.len() * 2 + 1);
    for (index, part) in parts.into_iter().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let range = content_range(&part);
        let head =
            format!("{line}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n");
        segments.push(Segment::Ready(Bytes::from(head)));
        segments.push(Segment::File(part));
    }
    segments.push(Segment::Ready(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    if let Ok(value) = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}")) {
        extra.insert(CONTENT_TYPE, value);
    }
    (StatusCode::PARTIAL_CONTENT, extra, segments)
}

/// One line a download, when its body is done with.
struct Log {
    app: App,
    filename: FileName,
    client: Client,
    request: RequestId,
    begun: Instant,
    bytes: u64,
    expected: u64,
    failure: Option<String>,
    /// To whoever watches, if it is told of.
    shown: Option<RunningDownload>,
}

impl FileBody<Log> {
    fn expect_all(&mut self) {
        let expected = self.remaining();
        self.observer_mut().expected = expected;
    }
}

impl Observer for Log {
    fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(shown) = &self.shown {
            shown.add(bytes);
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        let damaged = error.kind() == std::io::ErrorKind::InvalidData;
        let why = DownloadError::Decryption(error.to_string()).to_string();
        if damaged {
            self.app.downloads().record_damage(&self.filename, self.client.clone(), &why);
        }
        if let Some(shown) = &mut self.shown {
            shown.fail(if damaged { why } else { "the server's storage failed".into() });
        }
        self.failure = Some(error.to_string());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let speed = (self.bytes as f64 / seconds.max(1e-6)) as u64;
        let milliseconds = (seconds * 1e3) as u64;
        let what = if self.bytes == self.expected { "download completed" } else { "download broken off" };
        let (filename, bytes, error) = (self.filename.as_str(), self.bytes, self.failure.as_deref());
        let (client, agent, request) = (&*self.client.ip, &*self.client.agent, &*self.request.0);
        tracing::info!(filename, bytes, milliseconds, speed, client, agent, error, request, "{what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_to_old_and_new_clients() {
        for (name, expected) in [
            ("a.txt", "attachment; filename=\"a.txt\""),
            ("a b;c.txt", "attachment; filename=\"a b;c.txt\""),
            ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
            ("é.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ] {
            assert_eq!(content_disposition(&FileName::clean(name).unwrap(), false), expected);
        }
    }

    #[test]
    fn nothing_that_can_hold_a_script_is_shown() {
        for (name, safe) in [
            ("a.html", false),
            ("a.svg", false),
            ("a.xml", false),
            ("a.js", false),
            ("a.unheard-of", false),
            ("a", false),
            ("a.txt", true),
            ("a.png", true),
            ("a.mp4", true),
            ("a.pdf", true),
        ] {
            assert_eq!(media_type(&FileName::clean(name).unwrap()).1, safe, "{name}");
        }
    }
}
