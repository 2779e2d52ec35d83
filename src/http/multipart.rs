//! `multipart/form-data` (RFC 7578), on `multer`, with limits that hold.
//!
//! multer by itself takes in whatever the stream has ready, and keeps a part's header however long it grows. So it is
//! fed through a [`Gate`]: one piece at a time, and between parts no more than [`MAX_HEADERS`] bytes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use super::disposition::{self, Disposition};

/// Bytes that a field other than a file may have.
const MAX_FIELD: usize = 64 << 10;
/// Fields that a form may have.
const MAX_FIELDS: usize = 64;
/// Bytes that may come between two parts' contents: boundary and headers, and what came in the same piece.
const MAX_HEADERS: u64 = 64 << 10;
/// All that may stand in a form beside its files.
pub(super) const MAX_OVERHEAD: u64 = (MAX_FIELDS * MAX_FIELD) as u64;

#[derive(Debug, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("the body is no multipart/form-data with a boundary")]
    NotMultipart,
    #[error("the multipart body is malformed")]
    Malformed(String),
    #[error("the field {name:?} is longer than 65536 bytes")]
    FieldTooLarge { name: String },
    #[error("the form has more than 64 fields")]
    TooManyFields,
    #[error("nothing came for too long")]
    TimedOut,
    #[error("the request ended before its body was complete")]
    HungUp(String),
}

/// A form that is being read.
pub(super) struct Form {
    inner: multer::Multipart<'static>,
    feeding: Arc<Feeding>,
    idle: Duration,
    fields: usize,
}

/// A part of a form.
pub(super) struct Part {
    inner: multer::Field<'static>,
    feeding: Arc<Feeding>,
    idle: Duration,
    pub(super) name: String,
    filename: Option<String>,
}

impl Form {
    /// A form that may stand still for `idle` while it is read.
    pub(super) fn new(headers: &HeaderMap, body: Body, idle: Duration) -> Result<Self, MultipartError> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok());
        // RFC 2046 §5.1.1: 1 to 70 characters.
        let boundary = boundary.filter(|boundary| (1..=70).contains(&boundary.len()));
        let boundary = boundary.ok_or(MultipartError::NotMultipart)?;
        let feeding = Arc::new(Feeding::default());
        let gate = Gate { body: body.into_data_stream(), feeding: Arc::clone(&feeding), taken: false };
        Ok(Self { inner: multer::Multipart::new(gate, boundary), feeding, idle, fields: 0 })
    }

    /// The next part; `None` after the last. The one before must have been read to its end.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, MultipartError> {
        self.feeding.budget.store(MAX_HEADERS, Ordering::Relaxed);
        let part = tokio::time::timeout(self.idle, self.feeding.feed(self.inner.next_field()));
        let part = part.await.map_err(|_| MultipartError::TimedOut)?.map_err(read_error)?;
        self.feeding.budget.store(UNLIMITED, Ordering::Relaxed);
        let Some(inner) = part else { return Ok(None) };
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(MultipartError::TooManyFields);
        }
        // Not multer's own: it knows no `filename*`, and not what browsers write for a quotation mark.
        let header = inner.headers().get(CONTENT_DISPOSITION);
        let Disposition { name, filename } =
            header.map(|value| disposition::parse(value.as_bytes())).unwrap_or_default();
        let (feeding, name) = (Arc::clone(&self.feeding), name.unwrap_or_default());
        Ok(Some(Part { inner, feeding, idle: self.idle, name, filename }))
    }
}

impl Part {
    /// The name of the file that the part bears, as it was sent.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.filename.as_deref()
    }

    /// The next bytes of its content; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        let chunk = tokio::time::timeout(self.idle, self.feeding.feed(self.inner.chunk())).await;
        chunk.map_err(|_| MultipartError::TimedOut)?.map_err(read_error)
    }

    /// Its content as text; what is no UTF-8 is replaced.
    pub(super) async fn text(mut self) -> Result<String, MultipartError> {
        let mut content = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if content.len() + chunk.len() > MAX_FIELD {
                return Err(MultipartError::FieldTooLarge { name: self.name });
            }
            content.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}

/// The budget while a part's content is read: its reader counts for itself.
const UNLIMITED: u64 = u64::MAX;

/// Feeds multer one piece a turn, and not more than the budget.
struct Gate {
    body: BodyDataStream,
    feeding: Arc<Feeding>,
    taken: bool,
}

/// What passes between the gate and whoever reads the form.
#[derive(Default)]
struct Feeding {
    /// Bytes that may come between two parts' contents.
    budget: AtomicU64,
    /// Whether multer has asked for a second piece in one turn.
    refused: AtomicBool,
}

impl Feeding {
    /// What multer gives, turn by turn. A turn is not handed out by a wake-up: that costs one for each piece.
    async fn feed<T>(&self, reading: impl Future<Output = T>) -> T {
        let mut reading = pin!(reading);
        poll_fn(|context| {
            loop {
                match reading.as_mut().poll(context) {
                    // It had nothing to hand on yet.
                    Poll::Pending if self.refused.swap(false, Ordering::Relaxed) => {}
                    result => return result,
                }
            }
        })
        .await
    }
}

#[derive(Debug, thiserror::Error)]
enum GateError {
    #[error("the headers of a part are too long")]
    Headers,
    #[error(transparent)]
    Body(#[from] axum::Error),
}

impl Stream for Gate {
    type Item = Result<Bytes, GateError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.taken) {
            // multer asks until there is nothing ready: let it first hand on what it has.
            self.feeding.refused.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        let budget = self.feeding.budget.load(Ordering::Relaxed);
        if budget == 0 {
            return Poll::Ready(Some(Err(GateError::Headers)));
        }
        let piece = std::task::ready!(Pin::new(&mut self.body).poll_next(cx));
        self.taken = true;
        if let (Some(Ok(piece)), true) = (&piece, budget != UNLIMITED) {
            self.feeding.budget.store(budget.saturating_sub(piece.len() as u64), Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| piece.map_err(GateError::Body)))
    }
}

fn read_error(error: multer::Error) -> MultipartError {
    match error {
        multer::Error::StreamReadFailed(source) => match source.downcast::<GateError>() {
            Ok(gate) => match *gate {
                GateError::Headers => MultipartError::Malformed(GateError::Headers.to_string()),
                GateError::Body(error) => MultipartError::HungUp(error.to_string()),
            },
            Err(source) => MultipartError::HungUp(source.to_string()),
        },
        error => MultipartError::Malformed(error.to_string()),
    }
}
