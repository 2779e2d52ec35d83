//! Numbered chunks: `POST /upload_chunk`, `GET /resume_info/{filename}`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use http::Uri;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::Name;
use super::multipart::{Form, Part};
use super::options::UploadOptions;
use super::sender::Sender;
use super::upload::Uploaded;
use crate::app::App;
use crate::domain::{Digest, TransferId};
use crate::services::resumable::{Chunk, ChunkTaken, Incoming, ResumableError, ResumeInfo};

/// The answer to a chunk.
#[derive(Serialize)]
pub(super) struct Taken {
    chunks_received: u32,
    upload_id: TransferId,
    /// What there is to say of a file, or what there is to say of a chunk.
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rest {
    Uploading { success: bool, status: &'static str },
    Completed(Uploaded),
}

/// What a request has said of its chunk so far. A form's field wins over a query parameter, it over a header.
#[derive(Debug, Default)]
struct Fields {
    options: UploadOptions,
    number: Option<u32>,
    total: Option<u32>,
    hash: Option<Digest>,
    upload_id: Option<TransferId>,
    size: Option<u64>,
    file_size: Option<u64>,
    file_hash: Option<Digest>,
}

impl Fields {
    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        // As a form's empty input says nothing.
        let value = value.trim();
        if value.is_empty() {
            return Ok(());
        }
        match name {
            "chunk_number" => self.number = Some(number(name, value)?),
            "total_chunks" => self.total = Some(number(name, value)?),
            "chunk_size" => self.size = Some(number(name, value)?),
            "file_size" => self.file_size = Some(number(name, value)?),
            "chunk_hash" => self.hash = Some(digest(name, value)?),
            "file_hash" => self.file_hash = Some(digest(name, value)?),
            "upload_id" => {
                self.upload_id =
                    Some(value.parse().map_err(|_| invalid(name, "takes the upload_id of an answer"))?);
            }
            _ => self.options.set(name, value)?,
        }
        Ok(())
    }

    /// What is said of the chunk, once all is there that must be.
    fn chunk(&self, sender: &Sender) -> Result<Chunk, ApiError> {
        let options = &self.options;
        Ok(Chunk {
            filename: options.filename.clone().ok_or_else(|| missing("filename"))?,
            client: options.client(&sender.client),
            number: self.number.ok_or_else(|| missing("chunk_number"))?,
            total: self.total.ok_or_else(|| missing("total_chunks"))?,
            hash: self.hash.ok_or_else(|| missing("chunk_hash"))?,
            upload_id: self.upload_id,
            size: self.size,
            file_size: self.file_size,
            file_hash: self.file_hash.or(options.sha256),
            encryption: options.encryption,
            priority: options.priority.unwrap_or_default(),
        })
    }
}

fn missing(field: &str) -> ApiError {
    ApiError::bad_request("missing_field", format!("the form has no field {field:?}")).with("field", field)
}

fn invalid(field: &str, takes: &str) -> ApiError {
    ApiError::bad_request("invalid_chunk", format!("{field}: {takes}")).with("field", field)
}

fn number<T: std::str::FromStr>(field: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| invalid(field, "takes a whole number"))
}

fn digest(field: &str, value: &str) -> Result<Digest, ApiError> {
    value.parse().map_err(|_| invalid(field, "takes a SHA-256 as 64 hexadecimal digits"))
}

/// `POST /upload_chunk`: a form with a chunk.
pub(super) async fn post(
    State(app): State<App>,
    sender: Sender,
    request: Request,
) -> Result<Json<Taken>, ApiError> {
    let (parts, body) = request.into_parts();
    let mut fields =
        Fields { options: UploadOptions::read(&parts.headers, parts.uri.query())?, ..Fields::default() };
    for (name, value) in super::options::pairs(parts.uri.query().unwrap_or_default()) {
        fields.set(&name, &value.map_err(|()| super::options::OptionError::Query)?)?;
    }
    let mut form = Form::new(&parts.headers, body, app.idle_timeout())?;
    let mut incoming = None;
    while let Some(part) = form.next().await? {
        if part.name != "chunk" {
            let name = part.name.clone();
            fields.set(&name, &part.text().await?)?;
            continue;
        }
        if incoming.is_some() {
            let message = "the form has more than one chunk: send each by a request of its own";
            return Err(ApiError::bad_request("too_many_files", message));
        }
        // Where all is known already, the chunk goes to its place as it comes.
        let said = fields.chunk(&sender).ok();
        let begun = incoming.insert(app.resumable().begin_chunk(said.as_ref()).await?);
        receive(begun, part).await?;
    }
    let incoming = incoming.ok_or_else(|| missing("chunk"))?;
    let chunk = fields.chunk(&sender)?;
    let received = incoming.received();
    let filename = chunk.filename.clone();
    let taken = incoming.finish(chunk).await?;
    if let ChunkTaken::Completed { transfer, .. } = &taken {
        sender.log(transfer.id, &filename, received, "upload completed", None);
    }
    Ok(Json(taken.into()))
}

async fn receive(incoming: &mut Incoming, mut part: Part) -> Result<(), ApiError> {
    loop {
        let bytes = tokio::select! {
            biased;
            () = incoming.superseded() => return Err(ResumableError::TakenOver.into()),
            // Cancelled only where all is given up.
            bytes = part.chunk() => bytes?,
        };
        match bytes {
            Some(bytes) => incoming.push(bytes).await?,
            None => return Ok(()),
        }
    }
}

impl From<ChunkTaken> for Taken {
    fn from(taken: ChunkTaken) -> Self {
        match taken {
            ChunkTaken::Uploading { id, received } => Self {
                chunks_received: received,
                upload_id: id,
                rest: Rest::Uploading { success: true, status: "uploading" },
            },
            ChunkTaken::Completed { received, transfer } => Self {
                chunks_received: received,
                upload_id: transfer.id,
                rest: Rest::Completed(Uploaded::from(&*transfer)),
            },
        }
    }
}

/// `GET /resume_info/{filename}`: what there is of an upload.
pub(super) async fn resume_info(
    State(app): State<App>,
    sender: Sender,
    Name(filename): Name,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let client = UploadOptions::read(&headers, uri.query())?.client(&sender.client);
    let info = app.resumable().resume_info(&client, &filename).await?;
    Ok(Json(info.map_or_else(|| json!({"received_chunks": [], "can_resume": false}), |info| describe(&info))))
}

fn describe(info: &ResumeInfo) -> Value {
    let numbers: Vec<u32> = info.chunks.iter().map(|(number, _)| *number).collect();
    let hashes: Map<String, Value> =
        info.chunks.iter().map(|(number, digest)| (number.to_string(), digest.to_string().into())).collect();
    json!({
        "received_chunks": numbers,
        "can_resume": true,
        "upload_id": info.id,
        "total_chunks": info.total,
        "chunk_size": info.chunk_size,
        "chunk_hashes": hashes,
        "received_bytes": info.received,
        "expires_at": info.expires_at,
    })
}
