//! A request's body as the service takes it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::checksum;
use crate::services::resumable::{Broken, Piece};

/// The body, piece by piece; it ends with the first error. `idle`: how long it may stand still. `checksum_follows`: the
/// client has announced a checksum after it.
pub(super) fn pieces(
    body: Body,
    idle: Duration,
    checksum_follows: bool,
) -> impl Stream<Item = Result<Piece, Broken>> + Send + Unpin + 'static {
    let reading = Some(Reading { body, idle, checksum_follows });
    Box::pin(stream::unfold(reading, |reading| async move {
        let mut reading = reading?;
        let piece = reading.next().await?;
        // After an error, or a checksum, nothing follows.
        let more = matches!(piece, Ok(Piece::Data(_))).then_some(reading);
        Some((piece, more))
    }))
}

struct Reading {
    body: Body,
    idle: Duration,
    checksum_follows: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Piece, Broken>> {
        loop {
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Err(_) => return Some(Err(Broken::TimedOut)),
                Ok(Some(Err(error))) => return Some(Err(Broken::HungUp(error.to_string()))),
                // What was announced has not come: the bytes can't be checked.
                Ok(None) if self.checksum_follows => return Some(Err(Broken::Trailer)),
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => frame,
            };
            if let Some(piece) = self.piece(frame) {
                return Some(piece);
            }
        }
    }

    fn piece(&self, frame: Frame<Bytes>) -> Option<Result<Piece, Broken>> {
        match frame.into_data() {
            Ok(bytes) => (!bytes.is_empty()).then_some(Ok(Piece::Data(bytes))),
            // Trailers of other kinds are no concern of ours.
            Err(frame) if self.checksum_follows => {
                let checksum = frame.into_trailers().ok().as_ref().and_then(checksum::of_trailers);
                Some(checksum.map(Piece::Checksum).ok_or(Broken::Trailer))
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http::{HeaderMap, HeaderValue};
    use http_body_util::StreamBody;

    use super::super::fields::UPLOAD_CHECKSUM;
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    fn trailers(value: &'static str) -> Frame<Bytes> {
        Frame::trailers(HeaderMap::from_iter([(UPLOAD_CHECKSUM, HeaderValue::from_static(value))]))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    async fn read(frames: Vec<Frame<Bytes>>, checksum_follows: bool) -> Vec<String> {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>));
        let pieces = pieces(Body::new(StreamBody::new(frames)), IDLE, checksum_follows);
        let shown = pieces.map(|piece| match piece {
            Ok(Piece::Data(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Piece::Checksum(_)) => "checksum".into(),
            Err(error) => format!("{error:?}"),
        });
        shown.collect().await
    }

    #[tokio::test]
    async fn a_checksum_follows_only_where_it_was_announced() {
        const MD5: &str = "md5 XrY7u+Ae7tCTyyK7j1rNww==";
        let body = |last: Option<Frame<Bytes>>| {
            [data("he"), data(""), data("llo")].into_iter().chain(last).collect::<Vec<_>>()
        };
        for (last, announced, expected) in [
            (None, false, &["he", "llo"][..]),
            (Some(trailers(MD5)), true, &["he", "llo", "checksum"]),
            (Some(trailers(MD5)), false, &["he", "llo"]),
            (Some(trailers("crc32 AAAA")), true, &["he", "llo", "Trailer"]),
            (None, true, &["he", "llo", "Trailer"]),
        ] {
            assert_eq!(read(body(last), announced).await, expected);
        }
        assert_eq!(read(vec![], false).await, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_has_timed_out() {
        let body = Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>()));
        let read: Vec<_> = pieces(body, IDLE, false).map(|piece| piece.map(|_| ())).collect().await;
        assert_eq!(read, [Err(Broken::TimedOut)]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_says_so_once() {
        let frames = [Ok(data("a")), Err(std::io::Error::other("reset")), Ok(data("b"))];
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let read: Vec<_> = pieces(body, IDLE, false).map(|piece| piece.map(|_| ())).collect().await;
        assert!(matches!(read.as_slice(), [Ok(()), Err(Broken::HungUp(_))]), "{read:?}");
    }
}
