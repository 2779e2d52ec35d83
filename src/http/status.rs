//! What is going on: `GET /status`, `GET /status/{filename}`.

use std::io::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::error::ApiError;
use super::extract::Name;
use super::options;
use crate::app::App;
use crate::domain::{Timestamp, Transfer};
use crate::store::status::StatusStore;

/// Transfers that are looked up at once.
const PAGE: usize = 256;

/// `GET /status/{filename}`: the transfer of this name whose state changed last.
pub(super) async fn one(State(app): State<App>, Name(name): Name) -> Result<Json<Arc<Transfer>>, ApiError> {
    let transfer = app.status().current(&name);
    transfer.map(Json).ok_or_else(|| ApiError::no_such_transfer(name.as_str()))
}

/// `GET /status`: the transfers of all names, the last changed first. Written page by page as the client takes them, so
/// that a million of them take no memory.
pub(super) async fn all(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let paging = options::paging(uri.query())?;
    let total = app.status().name_count();
    let metadata = serde_json::json!({
        "total_transfers": total,
        "last_updated": app.status().recent(None, 1).first().map(|transfer| transfer.updated_at),
        "version": "1.0",
        "timestamp": Timestamp::now(),
    });
    let listing = Listing {
        status: app.status().clone(),
        skip: paging.offset,
        left: paging.limit.unwrap_or(usize::MAX),
        last: None,
        stage: Stage::Head,
        end: format!("],\"queue\":[],\"metadata\":{metadata}}}"),
    };
    let body = Body::from_stream(stream::unfold(listing, |mut listing| async move {
        listing.next().map(|piece| (Ok::<_, std::io::Error>(piece), listing))
    }));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A listing that is being written.
struct Listing {
    status: StatusStore,
    skip: usize,
    left: usize,
    /// The last transfer that was looked at: what changes meanwhile moves to the front, which has been passed.
    last: Option<Arc<Transfer>>,
    stage: Stage,
    end: String,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Head,
    Items { any: bool },
    Done,
}

impl Listing {
    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::with_capacity(32 << 10);
        let mut any = match self.stage {
            Stage::Done => return None,
            Stage::Head => {
                piece.extend_from_slice(b"{\"transfers\":[");
                false
            }
            Stage::Items { any } => any,
        };
        let page = if self.left == 0 { Vec::new() } else { self.status.recent(self.last.as_deref(), PAGE) };
        for transfer in &page {
            if self.skip > 0 {
                self.skip -= 1;
            } else if self.left > 0 {
                self.left -= 1;
                let comma: &[u8] = if any { b"," } else { b"" };
                any = true;
                // Writing to memory does not fail.
                _ = piece.write_all(comma);
                _ = serde_json::to_writer(&mut piece, transfer);
            }
        }
        self.stage = Stage::Items { any };
        match page.last() {
            Some(last) => self.last = Some(Arc::clone(last)),
            None => {
                piece.extend_from_slice(self.end.as_bytes());
                self.stage = Stage::Done;
            }
        }
        Some(piece.into())
    }
}
