//! Bodies over HTTP/2 that end before their end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body that fails where its stream was reset. hyper takes a reset with `NO_ERROR` (RFC 9113 section 8.1) for
/// the end of the body, and proxies send one when their own client has hung up: half a file would pass for a whole one.
pub(super) struct Whole {
    body: Incoming,
    /// Whether there is nothing more to say.
    is_over: bool,
}

impl Whole {
    /// `body` is that of a request over HTTP/2: only there the end of the stream can be seen.
    pub(super) const fn new(body: Incoming) -> Self {
        Self { body, is_over: false }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                self.is_over = true;
                Some(Err(error.into()))
            }
            None => {
                self.is_over = true;
                let is_cut = !self.body.is_end_stream();
                is_cut.then(|| Err("the stream was reset before the end of the body".into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
