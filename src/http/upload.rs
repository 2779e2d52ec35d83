//! Taking files in one request: `POST /upload` and `PUT /files/{filename}`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;

use super::error::ApiError;
use super::extract::{self, Name};
use super::multipart::{Form, MAX_OVERHEAD, MultipartError, Part};
use super::options::UploadOptions;
use super::resumable::{self, Asked};
use super::sender::Sender;
use crate::app::App;
use crate::domain::{Digest, FileName, Priority, Seal, Status, Transfer, TransferId};
use crate::services::resumable::Creation;
use crate::services::uploads::{Beginning, Ending, Upload, UploadError};

/// The answer to an upload.
#[derive(Serialize)]
pub(super) struct Uploaded {
    success: bool,
    id: TransferId,
    filename: FileName,
    hash: Option<Digest>,
    status: Status,
    encryption: bool,
    size: u64,
    priority: Priority,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    seal: Option<Seal>,
}

impl From<&Transfer> for Uploaded {
    fn from(transfer: &Transfer) -> Self {
        Self {
            success: true,
            id: transfer.id,
            filename: transfer.filename.clone(),
            hash: transfer.checksum,
            status: transfer.status,
            encryption: transfer.encryption,
            size: transfer.total_bytes.unwrap_or(0),
            priority: transfer.priority,
            seal: transfer.seal.as_deref().copied(),
        }
    }
}

/// What a request says of itself, apart from its body.
struct Context<'a> {
    app: &'a App,
    headers: &'a HeaderMap,
    sender: Sender,
}

/// `POST /upload`: a form with a file.
pub(super) async fn post(
    State(app): State<App>,
    sender: Sender,
    request: Request,
) -> Result<Json<Uploaded>, ApiError> {
    let (parts, body) = request.into_parts();
    let mut options = UploadOptions::read(&parts.headers, parts.uri.query())?;
    let mut form = Form::new(&parts.headers, body, app.idle_timeout())?;
    let context = Context { app: &app, headers: &parts.headers, sender };
    context.refuse_too_long_a_form()?;
    let mut upload = None;
    let result = read_form(&context, &mut form, &mut options, &mut upload).await;
    let (upload, result) = match (upload, result) {
        (None, Err(error)) => return Err(error.into()),
        (None, Ok(_)) => {
            return Err(ApiError::bad_request("missing_file", "the form has no field \"file\" with a file"));
        }
        (Some(upload), result) => (upload, result),
    };
    let filename = match result {
        Ok(filename) => filename,
        Err(error) => return Err(context.give_up(upload, error).await),
    };
    let Some(filename) = options.filename.clone().or(filename) else {
        let error = UploadFailure::Api(crate::domain::InvalidFileName::Empty.into());
        return Err(context.give_up(upload, error).await);
    };
    let transfer = context.finish(upload, filename, &options).await?;
    Ok(Json(Uploaded::from(&*transfer)))
}

/// Reads a form to its end: fields may stand in any order. Gives the name that came with the file.
async fn read_form(
    context: &Context<'_>,
    form: &mut Form,
    options: &mut UploadOptions,
    upload: &mut Option<Upload>,
) -> Result<Option<FileName>, UploadFailure> {
    let mut filename = None;
    while let Some(part) = form.next().await? {
        if part.name != "file" {
            let name = part.name.clone();
            options.set(&name, &part.text().await?)?;
            continue;
        }
        if upload.is_some() {
            let message = "the form has more than one file: send each by a request of its own";
            return Err(UploadFailure::Api(ApiError::bad_request("too_many_files", message)));
        }
        // A browser's form in which no file was chosen has a part with an empty name.
        let chosen = part.file_name().is_none_or(|name| !name.is_empty());
        let part_name = part.file_name().filter(|name| !name.is_empty());
        let cleaned = part_name.map(FileName::clean).transpose();
        filename = match (cleaned, &options.filename) {
            // A name of its own makes up for one that can't be used.
            (Err(_), Some(_)) => None,
            (cleaned, _) => cleaned?,
        };
        let known = options.filename.clone().or_else(|| filename.clone());
        let provisional = known.map_or_else(|| FileName::clean("unnamed"), Ok)?;
        let running = upload.insert(context.begin(provisional, options, Expected::Form).await?);
        receive(running, part).await?;
        if running.received() == 0 && !chosen && options.filename.is_none() {
            let message = "no file was chosen in the form";
            return Err(UploadFailure::Api(ApiError::bad_request("missing_file", message)));
        }
    }
    Ok(filename)
}

async fn receive(upload: &mut Upload, mut part: Part) -> Result<(), UploadFailure> {
    while let Some(bytes) = part.chunk().await? {
        upload.push(bytes).await?;
    }
    Ok(())
}

/// `PUT /files/{filename}`: the body is the file, or a part of one.
pub(super) async fn put(Name(filename): Name, asked: Asked) -> Result<Response, ApiError> {
    match resumable::Put::of(&asked.headers) {
        resumable::Put::Whole => put_whole(asked, filename).await,
        resumable::Put::Draft => resumable::put(asked, filename).await,
        resumable::Put::Range => resumable::put_range(asked, filename).await,
    }
}

async fn put_whole(asked: Asked, filename: FileName) -> Result<Response, ApiError> {
    let Asked { app, sender, uri, headers, body, .. } = asked;
    refuse_codings(&headers)?;
    let mut options = UploadOptions::read(&headers, uri.query())?;
    // The path names the file; a parameter of that name would contradict it.
    options.filename = Some(filename.clone());
    let context = Context { app: &app, headers: &headers, sender };
    let is_new = !app.uploads().is_taken(&filename);
    let mut upload = context.begin(filename.clone(), &options, Expected::Body).await?;
    if let Err(error) = receive_body(&mut upload, body, &app).await {
        return Err(context.break_off(upload, error, &options).await);
    }
    let transfer = context.finish(upload, filename, &options).await?;
    Ok(finished(&transfer, is_new))
}

/// The answer to a PUT, in one request or several, after which the file stands under its name.
pub(super) fn finished(transfer: &Transfer, is_new: bool) -> Response {
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/files/{}", extract::encode_component(transfer.filename.as_str()));
    (status, [(LOCATION, location)], Json(Uploaded::from(transfer))).into_response()
}

/// Files are stored as they come: a coded one would be another.
pub(super) fn refuse_codings(headers: &HeaderMap) -> Result<(), ApiError> {
    let coded = headers.get(CONTENT_ENCODING);
    if coded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::unsupported_media_type("bodies without a Content-Encoding"));
    }
    Ok(())
}

async fn receive_body(upload: &mut Upload, mut body: Body, app: &App) -> Result<(), UploadFailure> {
    loop {
        let frame = tokio::time::timeout(app.idle_timeout(), body.frame()).await;
        match frame.map_err(|_| MultipartError::TimedOut)? {
            None => return Ok(()),
            Some(Err(error)) => return Err(MultipartError::HungUp(error.to_string()).into()),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    upload.push(bytes).await?;
                }
            }
        }
    }
}

/// What `Content-Length` tells of the file.
enum Expected {
    /// Its size.
    Body,
    /// No more than that it is smaller.
    Form,
}

impl Context<'_> {
    fn content_length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// A form so long that its file must be too large is refused before it is read.
    fn refuse_too_long_a_form(&self) -> Result<(), ApiError> {
        let limit = self.app.uploads().max_file_size();
        match self.content_length() {
            Some(length) if length > limit.saturating_add(MAX_OVERHEAD) => {
                Err(UploadError::TooLarge { limit }.into())
            }
            _ => Ok(()),
        }
    }

    async fn begin(
        &self,
        filename: FileName,
        options: &UploadOptions,
        expected: Expected,
    ) -> Result<Upload, ApiError> {
        let length = self.content_length();
        let beginning = Beginning {
            filename,
            client: options.client(&self.sender.client),
            priority: options.priority.unwrap_or_default(),
            encryption: options.encryption,
            may_change: matches!(expected, Expected::Form),
            size: if matches!(expected, Expected::Body) { length } else { None },
            at_most: length,
        };
        // A field after the file may still give it another name: what stands under this one is then no concern.
        let condition = options.filename.as_ref().map(|_| options.condition(self.headers));
        self.app.uploads().admit(&beginning, &condition.unwrap_or_default())?;
        Ok(self.app.uploads().begin(beginning).await?)
    }

    async fn finish(
        &self,
        upload: Upload,
        filename: FileName,
        options: &UploadOptions,
    ) -> Result<Arc<Transfer>, ApiError> {
        let ending = Ending {
            filename: filename.clone(),
            client: options.client(&self.sender.client),
            priority: options.priority.unwrap_or_default(),
            encryption: options.encryption,
            sha256: options.sha256,
            condition: options.condition(self.headers),
        };
        let (id, received) = (upload.id(), upload.received());
        match upload.finish(ending).await {
            Ok(transfer) => {
                self.sender.log(id, &transfer.filename, received, "upload completed", None);
                Ok(transfer)
            }
            Err(error) => {
                self.sender.log(id, &filename, received, "upload failed", Some(&error.to_string()));
                Err(error.into())
            }
        }
    }

    /// A body that is the file did not come to its end: if the client or the network is why, what came is kept, so that
    /// it can be resumed.
    async fn break_off(&self, upload: Upload, failure: UploadFailure, options: &UploadOptions) -> ApiError {
        if !matches!(failure, UploadFailure::Multipart(MultipartError::HungUp(_) | MultipartError::TimedOut))
        {
            return self.give_up(upload, failure).await;
        }
        let creation = Creation {
            filename: upload.filename().clone(),
            client: options.client(&self.sender.client),
            priority: options.priority.unwrap_or_default(),
            encryption: options.encryption,
            sha256: options.sha256,
            condition: options.condition(self.headers),
            size: self.content_length(),
            metadata: None,
            idempotency_key: None,
            partial: false,
            says_its_end: false,
        };
        match self.app.resumable().keep(upload, creation).await {
            Ok(()) => failure.into(),
            Err(upload) => self.give_up(*upload, failure).await,
        }
    }

    async fn give_up(&self, upload: Upload, failure: UploadFailure) -> ApiError {
        let (id, received, filename) = (upload.id(), upload.received(), upload.filename().clone());
        let error = ApiError::from(failure);
        let why = error.cause.clone().unwrap_or_else(|| error.message.clone());
        upload.fail(&error.message).await;
        self.sender.log(id, &filename, received, "upload failed", Some(&why));
        error
    }
}

/// What can end an upload before all is there.
enum UploadFailure {
    Upload(UploadError),
    Multipart(MultipartError),
    Api(ApiError),
}

impl From<UploadError> for UploadFailure {
    fn from(error: UploadError) -> Self {
        Self::Upload(error)
    }
}

impl From<MultipartError> for UploadFailure {
    fn from(error: MultipartError) -> Self {
        Self::Multipart(error)
    }
}

impl From<ApiError> for UploadFailure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<super::options::OptionError> for UploadFailure {
    fn from(error: super::options::OptionError) -> Self {
        Self::Api(error.into())
    }
}

impl From<crate::domain::InvalidFileName> for UploadFailure {
    fn from(error: crate::domain::InvalidFileName) -> Self {
        Self::Api(error.into())
    }
}

impl From<UploadFailure> for ApiError {
    fn from(failure: UploadFailure) -> Self {
        match failure {
            UploadFailure::Upload(error) => error.into(),
            UploadFailure::Multipart(error) => error.into(),
            UploadFailure::Api(error) => error,
        }
    }
}
