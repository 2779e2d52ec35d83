//! Sealing where bytes come in, while the [threads](super::threads) that hash and write them are behind.
//!
//! A thread that hashes, seals and writes an upload does one after the other, and that of a fast one has no time to spare.
//! Whoever receives has: it waits as soon as the [stream](super::stream) is full. So once half of that waits, it seals what
//! comes, for the thread to write as it is. It does not always do so: a sealed byte then goes from one core's cache to
//! another's, which costs half as much as sealing it.
//!
//! Of a batch of [`LANES`] segments all is sealed either here or by the [writer](super::writer), unless it is handed over in the middle.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::piece::Piece;
use super::writer::Opening;
use crate::crypto::{Ends, FileKey, LANES, SealError, Sealer, is_fast};

/// Follows the bytes of an upload, and seals some of them.
pub(super) struct SealAhead {
    key: Arc<FileKey>,
    batch: Batch,
    /// The segment that the writing ends before, if that is known.
    end: Option<u64>,
}

struct Batch {
    segments: Range<u64>,
    /// So much plaintext of it is still to come.
    left: usize,
    /// `None`: the writer seals it.
    sealer: Option<Sealer>,
}

impl SealAhead {
    /// For what is written like this, if it is sealed, and the processor is fast enough at it to do so where others wait: a batch takes a
    /// fifth of a millisecond.
    pub(super) fn of(opening: &Opening) -> Option<Self> {
        if is_fast() { Self::at_any_speed(opening) } else { None }
    }

    pub(super) fn at_any_speed(opening: &Opening) -> Option<Self> {
        let (key, sealer) = opening.sealer().ok().flatten()?;
        let (first, end) = (sealer.next_segment(), sealer.end_segment());
        let mut ahead = Self { key, batch: Batch { segments: first..first, left: 0, sealer: None }, end };
        ahead.begin_batch(false).ok()?;
        // The writer has them.
        ahead.batch.left = ahead.batch.left.saturating_sub(opening.tail().len());
        Some(ahead)
    }

    /// `piece` has come: gives the pieces to be pushed for it. Asks `is_behind` before each batch. Takes as long as to seal it.
    pub(super) fn take(&mut self, mut piece: Bytes, is_behind: impl Fn() -> bool) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while !piece.is_empty() {
            if self.batch.left == 0 {
                pieces.extend(self.end_batch()?);
                self.begin_batch(is_behind()).map_err(io::Error::other)?;
            }
            let next = piece.split_to(piece.len().min(self.batch.left));
            self.batch.left -= next.len();
            match &mut self.batch.sealer {
                None => pieces.push(Piece::Data(next)),
                Some(sealer) => {
                    sealer.push(&mut &next[..]).map_err(io::Error::other)?;
                    pieces.push(Piece::Hash(next));
                }
            }
        }
        Ok(pieces)
    }

    /// Leaves to the writer what has come but is not sealed, since nobody knows what follows: gives the pieces to be pushed for
    /// that.
    pub(super) fn hand_over(&mut self) -> io::Result<Vec<Piece>> {
        let Some(mut sealer) = self.batch.sealer.take() else { return Ok(Vec::new()) };
        let mut pieces = Vec::new();
        let first = sealer.next_segment();
        if let Some(sealed) = sealer.flush().map_err(io::Error::other)? {
            let bytes = Bytes::copy_from_slice(sealed.bytes);
            pieces.push(Piece::Sealed { segments: first..sealer.next_segment(), bytes });
        }
        pieces.push(Piece::Write(Bytes::copy_from_slice(sealer.tail())));
        Ok(pieces)
    }

    /// More follows: seals the batch, if that is to be done here.
    fn end_batch(&mut self) -> io::Result<Option<Piece>> {
        let Some(sealer) = self.batch.sealer.take() else { return Ok(None) };
        let bytes = sealer.finish(Ends::Chunk).map_err(io::Error::other)?.bytes.into();
        Ok(Some(Piece::Sealed { segments: self.batch.segments.clone(), bytes }))
    }

    fn begin_batch(&mut self, here: bool) -> Result<(), SealError> {
        let first = self.batch.segments.end;
        let end = first.saturating_add(LANES as u64);
        let segments = first..self.end.map_or(end, |last| end.min(last));
        let geometry = self.key.header().geometry;
        let left = segments.clone().map(|segment| geometry.whole_segment_len(segment)).sum();
        // Nothing may follow on a chunk: the writer says so.
        let left = if segments.is_empty() { usize::MAX } else { left };
        let here = here && !segments.is_empty();
        let sealer = here.then(|| Sealer::segments(Arc::clone(&self.key), segments.clone())).transpose()?;
        self.batch = Batch { segments, left, sealer };
        Ok(())
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
pub(super) mod tests;
