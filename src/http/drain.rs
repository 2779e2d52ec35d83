//! Bodies that an early answer left unread.
//!
//! A client that sends everything before it reads (`requests`, browsers) never sees an answer that comes while it still
//! writes: the connection would be closed with data unread, which is a reset. So what is left of the body is read and
//! thrown away beside the answer, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

/// So much is thrown away, then the connection is closed.
const MOST_BYTES: u64 = 4 << 30;
/// So long, in all.
const MOST_TIME: Duration = Duration::from_secs(60);
/// So long without a byte.
const MOST_SILENCE: Duration = Duration::from_secs(10);

/// Where a body is put back that nobody read to its end.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// Somebody has it, or there is none.
    #[default]
    Away,
    Back(Left),
    /// The answer is on its way. What comes back now was with somebody who went on without it.
    Answered,
}

/// What is left of a body.
struct Left {
    body: Body,
    /// The client sent `Expect: 100-continue` and nobody has asked for the body: to read it before the answer has begun
    /// would tell the client to go on. It may send all the same (RFC 9110 §10.1.1), and has to see the answer then too.
    waits: bool,
}

struct Lent {
    body: Option<Body>,
    waits: bool,
    rest: Rest,
}

impl Rest {
    /// Lends the body to a handler; what it leaves comes back here. `waits`: the client sent `Expect: 100-continue`.
    pub(super) fn lend(&self, body: Body, waits: bool) -> Body {
        Body::new(Lent { body: Some(body), waits, rest: self.clone() })
    }

    /// Throws away what was left, beside whatever goes on; as soon as the answer has begun if the client waits.
    pub(super) fn drain(self, response: &mut Response) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *state, State::Answered);
        drop(state);
        match before {
            State::Away | State::Answered => {}
            State::Back(left) if left.waits => {
                let answer = std::mem::take(response.body_mut());
                *response.body_mut() = Body::new(Begun { answer, left: Some(left) });
            }
            State::Back(left) => left.drain(),
        }
    }

    fn give_back(&self, left: Left) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Answered) {
            drop(state);
            left.drain();
        } else {
            *state = State::Back(left);
        }
    }
}

impl Left {
    fn drain(self) {
        // A body that is dropped outside of the runtime belongs to a server that has ended.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            _ = tokio::time::timeout(MOST_TIME, throw_away(self.body)).await;
        });
    }
}

/// An answer's body that drains the request's as soon as it is asked for: its head has been written then.
struct Begun {
    answer: Body,
    left: Option<Left>,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(left) = self.left.take() {
            left.drain();
        }
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

async fn throw_away(mut body: Body) {
    let mut left = MOST_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(MOST_SILENCE, body.frame()).await {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(still) = left.checked_sub(length) else { return };
        left = still;
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.rest.give_back(Left { body, waits: self.waits });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt as _, stream};

    use super::*;

    /// A body of three pieces, and how many of them were taken.
    fn body() -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = stream::iter(0..3).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>("piece")
        });
        (Body::from_stream(pieces), taken)
    }

    #[tokio::test]
    async fn what_is_left_is_drained_before_and_after_the_answer() {
        for answered_first in [false, true] {
            let (body, taken) = body();
            let rest = Rest::default();
            let lent = rest.lend(body, false);
            let mut response = Response::new(Body::empty());
            if answered_first {
                rest.drain(&mut response);
                drop(lent);
            } else {
                drop(lent);
                rest.drain(&mut response);
            }
            while taken.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
        }
    }
}
