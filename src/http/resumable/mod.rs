//! Uploads that go on after a broken connection: tus 1.0.0 and Resumable Uploads for HTTP (IETF httpbis draft) on
//! `/uploads/`, and `Content-Range` on `PUT /files/{filename}`. All are views of one object; which is meant, the header
//! fields of a request say.

mod body;
mod checksum;
mod dialect;
mod draft;
mod fields;
mod metadata;
mod ranged;
mod tus;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts as _, Path, Request};
use axum::response::{IntoResponse, Response};
use http::header::ALLOW;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;

use self::dialect::{Dialect, effective_method};
pub(super) use self::dialect::{Mark, Put, only_asks_for_options};
use self::fields::{
    ACCEPT_PATCH, REPR_DIGEST, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE,
    TUS_VERSION, UPLOAD_COMPLETE, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH,
    UPLOAD_LIMIT, UPLOAD_METADATA,
};
pub(super) use self::fields::{InvalidField, UPLOAD_OFFSET};
use super::error::ApiError;
use super::extract::Name;
use super::options::{self, UploadOptions};
use super::sender::Sender;
use crate::app::App;
use crate::domain::{FileName, InvalidFileName, Status, TransferId};
use crate::services::resumable::{Append, Creation, Progress, ResumableError};

/// Where uploads are begun.
pub(super) const COLLECTION: &str = "/uploads";

/// What pages of other origins may read of an answer.
pub(super) const EXPOSED: [HeaderName; 14] = [
    TUS_RESUMABLE,
    TUS_VERSION,
    TUS_EXTENSION,
    TUS_MAX_SIZE,
    TUS_CHECKSUM_ALGORITHM,
    UPLOAD_OFFSET,
    UPLOAD_LENGTH,
    UPLOAD_DEFER_LENGTH,
    UPLOAD_METADATA,
    UPLOAD_CONCAT,
    UPLOAD_EXPIRES,
    UPLOAD_COMPLETE,
    UPLOAD_LIMIT,
    ACCEPT_PATCH,
];

/// What all of these requests have in common. Never borrowed across an `await`: a body can't be shared between threads.
pub(super) struct Asked {
    pub(super) app: App,
    pub(super) sender: Sender,
    method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl FromRequest<App> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let sender = Sender::from_request_parts(&mut parts, app).await?;
        let method = effective_method(&parts.method, &parts.headers)?;
        Ok(Self { app: app.clone(), sender, method, uri: parts.uri, headers: parts.headers, body })
    }
}

/// `/uploads`, `/uploads/`.
pub(super) async fn collection(asked: Asked) -> Result<Response, ApiError> {
    if asked.method == Method::OPTIONS {
        return Ok(capabilities(&asked.app, "OPTIONS, POST"));
    }
    match (asked.method.as_str(), asked.dialect()?) {
        ("POST", Dialect::Tus) => tus::create(asked).await,
        ("POST", Dialect::Draft) => draft::create(asked, None).await,
        ("POST", Dialect::Either) => Err(tus::version_mismatch()),
        _ => Err(not_allowed("OPTIONS, POST")),
    }
}

/// `/uploads/{id}`.
pub(super) async fn upload(
    id: Result<Path<TransferId>, axum::extract::rejection::PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH";
    if asked.method == Method::OPTIONS {
        return Ok(capabilities(&asked.app, METHODS));
    }
    let dialect = asked.dialect()?;
    // What is no id is the id of no upload.
    let id = id.map(|Path(id)| id).map_err(|_| dialect.refuse(ResumableError::Unknown, &asked.app));
    match (asked.method.as_str(), dialect) {
        ("HEAD" | "GET", _) => progress(asked, id?, dialect).await,
        ("PATCH", Dialect::Tus) => tus::append(asked, id?).await,
        ("PATCH", Dialect::Draft) => draft::append(asked, id?).await,
        ("PATCH", Dialect::Either) => Err(tus::version_mismatch()),
        ("DELETE", _) => {
            let cancelled = asked.app.resumable().cancel(id?).await;
            cancelled.map_err(|error| dialect.refuse(error, &asked.app))?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(not_allowed(METHODS)),
    }
}

/// `PUT /files/{filename}` of the draft's.
pub(super) async fn put(asked: Asked, filename: FileName) -> Result<Response, ApiError> {
    draft::create(asked, Some(filename)).await
}

/// `PUT /files/{filename}` with `Content-Range`.
pub(super) use self::ranged::put as put_range;

/// `OPTIONS /files/{filename}`: an upload of the draft's may begin there.
pub(super) async fn file_options(
    axum::extract::State(app): axum::extract::State<App>,
    _: Name,
) -> impl IntoResponse {
    let mut headers = HeaderMap::new();
    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS, PUT"));
    draft::capabilities(&app, &mut headers);
    (StatusCode::NO_CONTENT, headers)
}

/// What the server can do, for both kinds of client.
fn capabilities(app: &App, methods: &'static str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    tus::capabilities(app, &mut headers);
    draft::capabilities(app, &mut headers);
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn not_allowed(methods: &'static str) -> ApiError {
    ApiError::method_not_allowed().header(ALLOW, methods)
}

/// How far an upload is: tus's HEAD, and the draft's HEAD and GET.
async fn progress(asked: Asked, id: TransferId, dialect: Dialect) -> Result<Response, ApiError> {
    let progress = asked.app.resumable().progress(id).await;
    let progress = progress.map_err(|error| dialect.refuse(error, &asked.app))?;
    let mut headers = state(&progress);
    if dialect != Dialect::Draft {
        tus::describe(&progress, &mut headers);
    }
    if dialect != Dialect::Tus {
        draft::describe(&asked.app, &progress, &mut headers);
    }
    let status = if dialect == Dialect::Tus { StatusCode::OK } else { StatusCode::NO_CONTENT };
    Ok((status, headers).into_response())
}

/// What both protocols say of an upload, and the digest of what has been published.
fn state(progress: &Progress) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(progress.offset));
    if let Some(size) = progress.size {
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(size));
    }
    if let Some(digest) = progress.transfer.as_ref().and_then(|transfer| transfer.checksum) {
        fields::put(&mut headers, REPR_DIGEST, &options::encode_digest(&digest));
    }
    headers
}

/// A path: right behind every proxy that leaves paths as they are, and clients resolve it against the URL that they asked.
fn location(id: TransferId) -> String {
    format!("{COLLECTION}/{id}")
}

impl Asked {
    /// The protocol that the request speaks, in a version that we do.
    fn dialect(&self) -> Result<Dialect, ApiError> {
        let dialect = Dialect::of(&self.headers);
        if dialect == Dialect::Tus && !tus::is_spoken(&self.headers) {
            return Err(tus::version_mismatch());
        }
        Ok(dialect)
    }

    /// Whether there is no body, or an empty one.
    fn has_empty_body(&self) -> bool {
        self.body.is_end_stream() || fields::content_length(&self.headers) == Some(0)
    }

    /// The options of an upload that begins, where they don't stand in a header of one protocol.
    fn options(&self) -> Result<UploadOptions, ApiError> {
        Ok(UploadOptions::read_resumable(&self.headers, self.uri.query())?)
    }

    fn creation(&self, options: &UploadOptions, size: Option<u64>) -> Result<Creation, ApiError> {
        let filename = options.filename.clone().ok_or(InvalidFileName::Empty)?;
        Ok(Creation {
            filename,
            client: options.client(&self.sender.client),
            priority: options.priority.unwrap_or_default(),
            encryption: options.encryption,
            sha256: options.sha256,
            condition: options.condition(&self.headers),
            size,
            metadata: None,
            idempotency_key: fields::idempotency_key(&self.headers)?,
            partial: false,
            says_its_end: false,
        })
    }

    /// Begins an upload. One without bytes is complete then.
    async fn create(&mut self, creation: Creation) -> Result<Progress, ResumableError> {
        let is_empty = creation.size == Some(0);
        let created = self.app.resumable().create(creation).await?;
        if is_empty {
            self.log_end(&created, 0);
        }
        Ok(created)
    }

    /// Joins an upload of parts.
    async fn join(
        &mut self,
        creation: Creation,
        parts: Vec<TransferId>,
        list: Box<str>,
    ) -> Result<Progress, ResumableError> {
        let joined = self.app.resumable().join(creation, parts, list).await?;
        self.log_end(&joined, 0);
        Ok(joined)
    }

    /// Adds the body to an upload.
    async fn append(&mut self, id: TransferId, append: Append) -> Result<Progress, ResumableError> {
        let body = std::mem::take(&mut self.body);
        let pieces = body::pieces(body, self.app.idle_timeout(), append.checksum_follows);
        let offset = append.offset;
        let appended = self.app.resumable().append(id, append, pieces).await;
        match &appended {
            Ok(progress) => self.log_end(progress, progress.offset.saturating_sub(offset)),
            Err(ResumableError::Upload(error)) => {
                let transfer = self.app.status().transfer(id);
                // What can be tried again has not ended.
                if let Some(transfer) = transfer.filter(|transfer| transfer.status == Status::Failed) {
                    self.sender.log(id, &transfer.filename, 0, "upload failed", Some(&error.to_string()));
                }
            }
            Err(_) => {}
        }
        appended
    }

    /// One line for an upload that has been published by this request.
    fn log_end(&self, progress: &Progress, bytes: u64) {
        if let Some(transfer) = &progress.transfer {
            self.sender.log(progress.id, &transfer.filename, bytes, "upload completed", None);
        }
    }
}
