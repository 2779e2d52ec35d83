//! A file in ranges, several of them on their way at once.
//!
//! The bytes are written in their order, whichever connection brings them: what is in the `.part` file is at any moment the
//! beginning of the file, whole, so that a run that was killed leaves what every later one can go on with, and a stream
//! can be fed too. A range that is ahead waits in memory: [`RANGE`] for each connection at most.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{IF_RANGE, RANGE as RANGE_HEADER};
use reqwest::{Response, Url};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::headers::{self, ContentRange};
use super::{AHEAD, DownloadError, Shared, on};
use crate::client::progress::{Event, Observer, Phase};
use crate::client::retry::{self, Backoff};
use crate::client::{Client, Error, Retries};

/// Bytes of a range. A file that is not longer comes over one connection.
pub(super) const RANGE: u64 = 4 << 20;
/// A connection that brought this much counts as a step forward: the retries are counted anew.
const STEP: u64 = 64 << 10;

/// What all ranges of a download have in common.
pub(super) struct Wanted {
    pub(super) client: Client,
    pub(super) url: Url,
    /// The version that the bytes must be of.
    pub(super) tag: String,
    pub(super) total: u64,
    pub(super) retries: Retries,
    pub(super) connections: usize,
    pub(super) observer: Observer,
}

/// Why a range has not arrived.
pub(super) enum Missing {
    /// The file is another one by now.
    Replaced,
    /// Retries have been used up, or are of no use.
    Failed(DownloadError),
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Wanted {
    /// Fetches everything from where `response` begins, which is an answer that brings `first`.
    ///
    /// Dropping the future ends all connections.
    pub(super) async fn receive(
        self: Arc<Self>,
        response: Response,
        first: Range<u64>,
        local: &Shared,
    ) -> Result<(), Missing> {
        let (total, have) = (self.total, first.start);
        on(local, move |local| local.reserve(Some(total))).await.map_err(Missing::Failed)?;
        (self.observer)(Event::Started { phase: Phase::Receiving, done: have, total: Some(total) });
        let (sender, mut pieces) = mpsc::channel(AHEAD);
        let watched = Arc::clone(&self.observer);
        let writer = on(local, move |local| local.take(&mut pieces, &watched).map(|()| local.have()));
        let (written, arrived) = tokio::join!(writer, Arc::clone(&self).read(response, first, sender));
        let written = written.map_err(Missing::Failed)?;
        arrived?;
        if written == total {
            return Ok(());
        }
        let detail = format!("{written} of {total} bytes have arrived");
        Err(Error::Broken { server: self.client.server.clone(), detail }.into())
    }

    /// Hands on the bytes of all ranges in their order.
    async fn read(
        self: Arc<Self>,
        response: Response,
        first: Range<u64>,
        sender: mpsc::Sender<Bytes>,
    ) -> Result<(), Missing> {
        let quieter = retry::quieter(&self.observer);
        // Ends what is still on its way when it is dropped.
        let mut running = JoinSet::new();
        let mut ahead = VecDeque::new();
        let (mut at, mut response) = (first.start, Some(response));
        loop {
            while ahead.len() < self.connections && at < self.total {
                let end = if response.is_some() { first.end } else { self.total.min(at + RANGE) };
                // Not bounded by itself: a range is.
                let (pieces, received) = mpsc::unbounded_channel();
                let wanted = Arc::clone(&self);
                running.spawn(wanted.bring(at..end, response.take(), pieces, Arc::clone(&quieter)));
                ahead.push_back(received);
                at = end;
            }
            let Some(mut next) = ahead.pop_front() else { return Ok(()) };
            while let Some(piece) = next.recv().await {
                if sender.send(piece?).await.is_err() {
                    // The writer has stopped, and says why.
                    return Ok(());
                }
            }
        }
    }

    /// Brings a range, and goes on within it where a connection broke.
    async fn bring(
        self: Arc<Self>,
        range: Range<u64>,
        mut response: Option<Response>,
        pieces: mpsc::UnboundedSender<Result<Bytes, Missing>>,
        observer: Observer,
    ) {
        let mut backoff = Backoff::new(self.retries);
        let mut at = range.start;
        loop {
            let before = at;
            let missing = match self.attempt(&mut at, range.end, response.take(), &pieces).await {
                Ok(()) => return,
                Err(Missing::Replaced) => Missing::Replaced,
                Err(Missing::Failed(error)) => {
                    if at >= before + STEP {
                        backoff.moved_on();
                    }
                    match backoff.pause(error, &observer).await {
                        Ok(()) => continue,
                        Err(error) => Missing::Failed(error),
                    }
                }
            };
            // Who would have read it has gone: then nobody needs to know.
            _ = pieces.send(Err(missing));
            return;
        }
    }

    async fn attempt(
        &self,
        at: &mut u64,
        end: u64,
        response: Option<Response>,
        pieces: &mpsc::UnboundedSender<Result<Bytes, Missing>>,
    ) -> Result<(), Missing> {
        let mut response = match response {
            Some(response) => response,
            None => self.ask(*at..end).await?,
        };
        while let Some(piece) = self.client.next_piece(&mut response).await? {
            let length = piece.len() as u64;
            if length > end - *at {
                let detail = "it has sent more than the range that it was asked for".to_owned();
                return Err(Error::Unexpected { server: self.client.server.clone(), detail }.into());
            }
            *at += length;
            if pieces.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
        if *at == end {
            return Ok(());
        }
        let detail = format!("{} bytes of a range have not arrived", end - *at);
        Err(Error::Broken { server: self.client.server.clone(), detail }.into())
    }

    async fn ask(&self, range: Range<u64>) -> Result<Response, Missing> {
        let request = self
            .client
            .http
            .get(self.url.clone())
            .header(RANGE_HEADER, format!("bytes={}-{}", range.start, range.end - 1))
            .header(IF_RANGE, &self.tag);
        let response = self.client.send(request, self.client.timeouts.answer).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let expected =
                    ContentRange { first: Some(range.start), end: Some(range.end), total: Some(self.total) };
                let fits = headers::content_range(response.headers()) == Some(expected);
                if fits && headers::is_same(response.headers(), &self.tag) {
                    Ok(response)
                } else {
                    Err(Missing::Replaced)
                }
            }
            // `If-Range` names another version than there is, or there are fewer bytes.
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => Err(Missing::Replaced),
            _ => Err(self.client.no_file(response).await.into()),
        }
    }
}
