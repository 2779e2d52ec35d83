//! What is there: `GET /files`.

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;

use super::error::ApiError;
use super::options;
use crate::app::App;
use crate::domain::{Digest, FileName, Timestamp};

/// A file in the list.
#[derive(Serialize)]
pub(super) struct Listed {
    filename: FileName,
    size: Option<u64>,
    checksum: Option<Digest>,
    encryption: bool,
    modified: Option<Timestamp>,
}

/// A page of the list of files.
#[derive(Serialize)]
pub(super) struct Page {
    files: Vec<Listed>,
    total_count: usize,
    returned_count: usize,
    offset: usize,
    limit: usize,
}

/// Files on a page unless another number is asked for, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// `GET /files`: by name.
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let paging = options::paging(uri.query())?;
    let (offset, limit) = (paging.offset, paging.limit.unwrap_or(PAGE).min(LARGEST_PAGE));
    let (files, total_count) = app.status().files(offset, limit);
    let files: Vec<_> = files
        .into_iter()
        .map(|entry| Listed {
            filename: entry.filename,
            size: entry.file.as_ref().map(|file| file.size),
            checksum: entry.checksum,
            encryption: entry.encryption,
            modified: entry.file.map(|file| file.modified),
        })
        .collect();
    Ok(Json(Page { returned_count: files.len(), files, total_count, offset, limit }))
}
