//! Adding a body to an upload.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};

use super::Resumable;
use super::completion::finish;
use super::model::{Append, Broken, Checksum, Piece, Progress, ResumableError};
use super::ordered::{Stage, Work};
use super::registry::{Known, Unfinished};
use super::turns::Turn;
use crate::domain::{Timestamp, TransferId};
use crate::services::checksum::PieceHash;
use crate::services::pipeline::{Marker, Pipeline, blocking};
use crate::services::uploads::UploadError;
use crate::services::writer::{Target, Writer};
use crate::store::upload_log::Record;

/// So much of a body may be lost by a crash: up to there it has not been told.
const MARK: u64 = 32 << 20;

/// How a body ended.
enum Ended {
    Well {
        checksum: Option<Checksum>,
    },
    Broken(Broken),
    TakenOver,
    /// There is more of it than there may be.
    TooMuch,
}

/// What is done with a body that is taken.
struct Verdict {
    checksum: Option<Checksum>,
    /// Why there is not more of it.
    end: Option<ResumableError>,
    /// Whether it was the last.
    complete: bool,
}

impl Resumable {
    pub(super) async fn append_to_the_end<S>(
        &self,
        id: TransferId,
        append: Append,
        body: S,
    ) -> Result<Progress, ResumableError>
    where
        S: Stream<Item = Result<Piece, Broken>> + Send + Unpin + 'static,
    {
        let upload = match self.known(id)? {
            Known::Finished(finished) => return again(Self::of_finished(&finished), &append),
            Known::Unfinished(upload) => upload,
        };
        let Turn { mut work, newer } = upload.ordered()?.take().await?;
        let work = &mut *work;
        let progress = self.of_unfinished(&upload, work);
        match work.stage {
            Stage::Ended => return again(self.after_the_end(id)?, &append),
            Stage::Whole if upload.is_partial() => return again(progress, &append),
            Stage::Open | Stage::Whole => {}
        }
        let offset = progress.offset;
        if append.offset != offset {
            let provided = append.offset;
            return Err(ResumableError::Offset { expected: offset, provided, progress: Box::new(progress) });
        }
        let size = agreed_size(work.size, &append)?;
        self.check_size(size)?;
        if !self.0.uploads.space.has_room_for(append.length.unwrap_or(0)) {
            return Err(UploadError::Full.into());
        }
        if let Some(size) = size.filter(|_| work.size.is_none()) {
            self.learn_size(&upload, work, size).await?;
        }
        upload.touch(Timestamp::now());
        // Space is set aside for the body as soon as it is known to be long: it is not counted twice.
        let soon = append.length.unwrap_or(0);
        upload.seat.expect(size.map_or(0, |size| size.saturating_sub(offset).saturating_sub(soon)));
        let checked = append.checksum.is_some() || append.checksum_follows;
        let mut pipeline = self.pipeline(&upload, work, &append);
        let mut arrived = offset;
        let most = size.or(self.0.limits.size).unwrap_or(u64::MAX);
        let ended = {
            let live = upload.live.as_ref().filter(|_| !checked);
            let mut arrives = |bytes: u64| {
                arrived += bytes;
                live.inspect(|live| live.reach(arrived));
            };
            receive(&mut pipeline, body, &newer, most.saturating_sub(offset), &mut arrives).await
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                self.give_back(&upload, work).await;
                return Err(UploadError::storage(&error).into());
            }
        };
        let Verdict { checksum, end, complete } = match judge(ended, &append, size, arrived, most) {
            Ok(verdict) => verdict,
            Err(error) => {
                pipeline.abandon().await;
                self.give_back(&upload, work).await;
                return Err(error);
            }
        };
        if complete && !upload.is_partial() {
            // However the body ended: all that there is to come is there.
            let whole = match finish(pipeline, checksum).await {
                Ok(Some(whole)) => whole,
                refused => {
                    self.give_back(&upload, work).await;
                    return Err(refused.err().unwrap_or(ResumableError::PieceChecksum));
                }
            };
            return self.publish(&upload, work, whole).await;
        }
        let checkpoint = work.checkpoint(&upload.manifest);
        let kept = pipeline.end(move |mut writer, hashes| {
            let right = checksum.is_none_or(|checksum| hashes.piece.clone().has(&checksum));
            if right {
                checkpoint(&mut writer, &hashes)?;
                writer.give_back()?;
            }
            Ok(right)
        });
        let kept = kept.await.map_err(|error| UploadError::storage(&error));
        if !matches!(kept, Ok(true)) {
            self.give_back(&upload, work).await;
        }
        if !kept? {
            return Err(ResumableError::PieceChecksum);
        }
        if complete {
            if work.size.is_none() {
                self.learn_size(&upload, work, arrived).await?;
            }
            work.stage = Stage::Whole;
        }
        upload.seat.expect(size.map_or(0, |size| size.saturating_sub(arrived)));
        upload.live.as_ref().inspect(|live| live.reach(arrived));
        upload.touch(Timestamp::now());
        match end {
            None => Ok(self.of_unfinished(&upload, work)),
            Some(error) => Err(error),
        }
    }

    /// A piece was not taken: what was written of it goes, and space that was set aside, which others may need.
    async fn give_back(&self, upload: &Unfinished, work: &Work) {
        let (target, opening) = (self.target(upload.id(), 0), work.opening().0);
        if let Err(error) = blocking(move || Writer::open(target, opening).map(drop)).await {
            tracing::warn!(%error, id = %upload.id(), "what was written of a piece could not be cut off");
        }
    }

    pub(super) fn check_size(&self, size: Option<u64>) -> Result<(), ResumableError> {
        match (size, self.0.limits.size) {
            (Some(size), Some(limit)) if size > limit => Err(ResumableError::TooLarge { limit }),
            _ => Ok(()),
        }
    }

    /// The client has said at last how long it will be.
    async fn learn_size(
        &self,
        upload: &Unfinished,
        work: &mut Work,
        size: u64,
    ) -> Result<(), ResumableError> {
        let durable = Arc::clone(&work.durable);
        let written = blocking(move || {
            let mut durable = durable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            durable.log.append(&Record::Size(size))
        });
        written.await.map_err(|error| UploadError::storage(&error))?;
        work.size = Some(size);
        upload.live.as_ref().inspect(|live| live.set_total(size));
        Ok(())
    }

    pub(super) fn pipeline(&self, upload: &Unfinished, work: &Work, append: &Append) -> Pipeline {
        let (opening, mut hashes) = work.opening();
        if let Some(checksum) = &append.checksum {
            hashes.piece = PieceHash::of(checksum);
        } else if append.checksum_follows {
            hashes.piece = PieceHash::of_any();
        }
        let pipeline = Pipeline::new(self.target(upload.id(), append.length.unwrap_or(0)), opening, hashes);
        if append.checksum.is_some() || append.checksum_follows {
            return pipeline;
        }
        pipeline.marked(Marker { every: MARK, mark: Arc::new(work.checkpoint(&upload.manifest)) })
    }

    pub(super) fn target(&self, id: TransferId, expected: u64) -> Target {
        let uploads = &self.0.uploads;
        let (layout, space) = (uploads.layout.clone(), uploads.space.clone());
        Target { layout, id, expected, space, durability: uploads.durability }
    }
}

/// What is done with a body that ended so; an error: nothing of it is taken.
fn judge(
    ended: Ended,
    append: &Append,
    size: Option<u64>,
    arrived: u64,
    most: u64,
) -> Result<Verdict, ResumableError> {
    let checked = append.checksum.is_some() || append.checksum_follows;
    let (checksum, end) = match ended {
        // What can't be compared with its checksum is not taken.
        Ended::Broken(broken) if checked => return Err(broken.into()),
        Ended::TakenOver if checked => return Err(ResumableError::TakenOver),
        Ended::Well { checksum } => (append.checksum.or(checksum), None),
        Ended::Broken(broken) => (None, Some(broken.into())),
        Ended::TakenOver => (None, Some(ResumableError::TakenOver)),
        Ended::TooMuch => match size {
            Some(_) => return Err(ResumableError::Inconsistent),
            None => return Err(ResumableError::TooLarge { limit: most }),
        },
    };
    if append.checksum_follows && checksum.is_none() {
        return Err(Broken::Trailer.into());
    }
    let complete = match append.complete {
        // A body that broke off behind its last byte has brought everything.
        None => size == Some(arrived),
        Some(complete) => complete && end.is_none(),
    };
    if complete && size.is_some_and(|size| size != arrived) {
        return Err(ResumableError::Inconsistent);
    }
    Ok(Verdict { checksum, end, complete })
}

/// Who comes to a complete upload and brings nothing wants to hear the answer again.
fn again(progress: Progress, append: &Append) -> Result<Progress, ResumableError> {
    if append.offset == progress.offset && append.length == Some(0) {
        Ok(progress)
    } else {
        Err(ResumableError::Complete(Box::new(progress)))
    }
}

/// How long the upload will be, by all that has been said of it.
fn agreed_size(known: Option<u64>, append: &Append) -> Result<Option<u64>, ResumableError> {
    let end = append.length.map(|length| append.offset.checked_add(length));
    let end = end.map(|end| end.ok_or(ResumableError::Inconsistent)).transpose()?;
    let mut size = known;
    for said in [append.size, end.filter(|_| append.complete == Some(true))].into_iter().flatten() {
        if said != *size.get_or_insert(said) {
            return Err(ResumableError::Inconsistent);
        }
    }
    let least = end.unwrap_or(append.offset);
    if size.is_some_and(|size| size < least) { Err(ResumableError::Inconsistent) } else { Ok(size) }
}

/// Takes a body, until it ends or somebody newer comes.
async fn receive<S>(
    pipeline: &mut Pipeline,
    mut body: S,
    newer: &tokio_util::sync::CancellationToken,
    most: u64,
    arrives: &mut impl FnMut(u64),
) -> std::io::Result<Ended>
where
    S: Stream<Item = Result<Piece, Broken>> + Unpin,
{
    let (mut left, mut checksum) = (most, None);
    loop {
        let piece = tokio::select! {
            biased;
            () = newer.cancelled() => return Ok(Ended::TakenOver),
            // Cancel-safe: what a stream has not handed out stays in it.
            piece = body.next() => piece,
        };
        match piece {
            None => return Ok(Ended::Well { checksum }),
            Some(Err(broken)) => return Ok(Ended::Broken(broken)),
            Some(Ok(Piece::Checksum(trailer))) => checksum = Some(trailer),
            Some(Ok(Piece::Data(bytes))) => {
                let length = bytes.len() as u64;
                let Some(rest) = left.checked_sub(length) else { return Ok(Ended::TooMuch) };
                left = rest;
                pipeline.push(bytes).await?;
                arrives(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_said_once_and_holds() {
        let append =
            |offset, length, size, complete| Append { offset, length, size, complete, ..Append::default() };
        for (known, append, expected) in [
            (None, append(0, None, None, None), Ok(None)),
            (None, append(0, Some(5), None, None), Ok(None)),
            (None, append(5, Some(5), None, Some(true)), Ok(Some(10))),
            (None, append(5, Some(5), Some(11), Some(true)), Err(())),
            (None, append(5, Some(5), Some(9), None), Err(())),
            (Some(10), append(5, Some(5), None, None), Ok(Some(10))),
            (Some(10), append(5, Some(5), Some(10), Some(true)), Ok(Some(10))),
            (Some(10), append(5, Some(4), None, Some(true)), Err(())),
            (Some(10), append(5, Some(4), None, Some(false)), Ok(Some(10))),
            (Some(10), append(5, Some(6), None, None), Err(())),
            (Some(10), append(5, None, Some(12), None), Err(())),
            (None, append(u64::MAX, Some(1), None, None), Err(())),
        ] {
            assert_eq!(agreed_size(known, &append).map_err(drop), expected, "{known:?} {append:?}");
        }
    }
}
