//! The SHA-256 of a file that comes in chunks: it follows the chunks from the first on, as far as they are there.
//!
//! A chunk that follows on what has been hashed is hashed as it comes, for itself and for the whole at once
//! ([`Sha256Pair`]). One that comes beside those before it waits for its turn, a moment, and is read back then: it has just
//! been written, and is in the page cache. Any other is hashed for itself, and again for the whole when the gap before it is
//! closed: the order of the chunks does not matter.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::chunked::{Chunked, Place, Received};
use super::registry::Unfinished;
use crate::crypto::{LANES, Layout as Container, Sha256Pair};
use crate::domain::{Digest, TransferId};
use crate::services::pipeline::blocking;
use crate::store::Layout;
use crate::store::files::OpenFile;

/// So long a chunk waits for those before it that are on their way.
const PATIENCE: Duration = Duration::from_millis(100);
/// So much is read at once of what is not sealed.
const PIECE: usize = 256 << 10;

/// How far the hash has come.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    next: u32,
    hash: Sha256,
}

/// The data file of an upload, to read chunks of it.
pub(super) struct Chunks {
    file: OpenFile,
    buffer: Vec<u8>,
}

impl Chunks {
    pub(super) fn open(layout: &Layout, id: TransferId) -> io::Result<Self> {
        Ok(Self { file: OpenFile::at(&layout.upload_data(id))?, buffer: Vec::new() })
    }

    /// Reads a chunk; `is_last`: the last of its file.
    pub(super) fn read(
        &mut self,
        place: &Place,
        number: u32,
        length: u64,
        is_last: bool,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let start = place.start(number);
        let Some(key) = &place.key else {
            let mut done = 0;
            while done < length {
                let piece = PIECE.min(usize::try_from(length - done).unwrap_or(PIECE));
                self.buffer.resize(piece, 0);
                self.file.read_exact_at(&mut self.buffer, start + done)?;
                take(&self.buffer);
                done += piece as u64;
            }
            return Ok(());
        };
        if length == 0 {
            return Ok(());
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        // Whether a segment is the last of its file is part of its nonce.
        let content = if is_last { start + length } else { start + length + 1 };
        let geometry = key.header().geometry;
        let container =
            Container::of_plaintext(geometry, content).map_err(|error| invalid(error.to_string()))?;
        let touched = container.touched(start..start + length).map_err(|error| invalid(error.to_string()))?;
        let mut first = touched.segments.start;
        while first < touched.segments.end {
            let end = touched.segments.end.min(first + LANES as u64);
            let range = container.container_range(first..end).map_err(|error| invalid(error.to_string()))?;
            self.buffer.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
            self.file.read_exact_at(&mut self.buffer, range.start)?;
            let opened = key.open_segments(&container, first, &mut self.buffer);
            take(opened.map_err(|error| invalid(error.to_string()))?);
            first = end;
        }
        Ok(())
    }
}

impl Chunked {
    /// Hashes on as far as the chunks are there, and waits for whoever does. Blocking.
    ///
    /// # Errors
    /// What the system says; `InvalidData`: a sealed chunk is damaged.
    pub(super) fn advance(&self, layout: &Layout, id: TransferId) -> io::Result<Option<Digest>> {
        let mut prefix = self.prefix.lock().unwrap_or_else(PoisonError::into_inner);
        self.advance_from(&mut prefix, layout, id)?;
        let done = prefix.next == self.total;
        Ok(done.then(|| Digest::new(prefix.hash.clone().finalize().into())))
    }

    /// The same, unless somebody does already. Blocking.
    pub(super) fn try_advance(&self, layout: &Layout, id: TransferId) -> io::Result<()> {
        match self.prefix.try_lock() {
            Ok(mut prefix) => self.advance_from(&mut prefix, layout, id),
            Err(_) => Ok(()),
        }
    }

    fn advance_from(&self, prefix: &mut Prefix, layout: &Layout, id: TransferId) -> io::Result<()> {
        let mut chunks = None;
        while let Some((place, Received { length, .. })) = self.placed(prefix.next) {
            let chunks = match &mut chunks {
                Some(chunks) => chunks,
                None => chunks.insert(Chunks::open(layout, id)?),
            };
            let mut hash = prefix.hash.clone();
            let is_last = prefix.next + 1 == self.total;
            chunks.read(&place, prefix.next, length, is_last, |bytes| hash.update(bytes))?;
            prefix.hash = hash;
            prefix.next += 1;
            self.hashed.send_replace(prefix.next);
        }
        Ok(())
    }

    /// The hash of the whole, if this chunk follows on it.
    pub(super) fn before(&self, number: u32) -> Option<Sha256> {
        let prefix = self.prefix.try_lock().ok()?;
        (prefix.next == number).then(|| prefix.hash.clone())
    }

    /// A chunk is there, and the hash of the whole with it is known.
    pub(super) fn follow(&self, number: u32, whole: Sha256) {
        if let Ok(mut prefix) = self.prefix.try_lock()
            && prefix.next == number
        {
            *prefix = Prefix { next: number + 1, hash: whole };
            self.hashed.send_replace(prefix.next);
        }
    }

    /// Hashes a chunk that has been written, for itself and, if those before it come in time, for the whole.
    ///
    /// # Errors
    /// What the system says; `InvalidData`: a sealed chunk is damaged.
    pub(super) async fn hash_in_turn(
        upload: &Arc<Unfinished>,
        layout: Layout,
        place: Place,
        number: u32,
        length: u64,
    ) -> io::Result<(Digest, Option<Sha256>)> {
        let Some(chunked) = upload.chunked() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut hashed = chunked.hashed.subscribe();
        let first = *hashed.borrow();
        if chunked.come_soon(first, number) {
            // Late or never: then for itself alone.
            _ = tokio::time::timeout(PATIENCE, hashed.wait_for(|next| *next >= number)).await;
        }
        let upload = Arc::clone(upload);
        blocking(move || {
            let Some(chunked) = upload.chunked() else { return Err(io::ErrorKind::NotFound.into()) };
            let is_last = number + 1 == chunked.total;
            let mut chunks = Chunks::open(&layout, upload.id())?;
            let Some(whole) = chunked.before(number) else {
                let mut hash = Sha256::new();
                chunks.read(&place, number, length, is_last, |bytes| hash.update(bytes))?;
                return Ok((Digest::new(hash.finalize().into()), None));
            };
            let mut pair = Sha256Pair::new(Sha256::new(), whole);
            chunks.read(&place, number, length, is_last, |bytes| pair.update(bytes))?;
            let (hash, whole) = pair.split();
            Ok((Digest::new(hash.finalize().into()), Some(whole)))
        })
        .await
    }

    /// The numbers of the chunks that are not what had arrived. Blocking.
    ///
    /// # Errors
    /// What the system says, but that the file is too short.
    pub(super) fn damaged(&self, layout: &Layout, id: TransferId) -> io::Result<Vec<u32>> {
        let mut prefix = self.prefix.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunks = Chunks::open(layout, id)?;
        let (mut damaged, mut whole) = (Vec::new(), Prefix::default());
        for (number, _) in self.all() {
            let Some((place, received)) = self.placed(number) else { continue };
            let is_last = number + 1 == self.total;
            // What follows on is hashed twice in one reading.
            let follows = whole.next == number;
            let mut read = |is_last| {
                let (mut hash, mut next) = (Sha256::new(), whole.hash.clone());
                chunks.read(&place, number, received.length, is_last, |bytes| {
                    hash.update(bytes);
                    if follows {
                        next.update(bytes);
                    }
                })?;
                Ok::<_, io::Error>((Digest::new(hash.finalize().into()), next))
            };
            let mut found = read(is_last);
            // The last chunk is empty, and the file was about to be published: it ends with the one before then.
            let follows_none = |(_, last): (Place, Received)| last.length == 0;
            if number + 2 == self.total && found.is_err() && self.placed(number + 1).is_some_and(follows_none)
            {
                found = read(true);
            }
            match found {
                Ok((hash, next)) if hash == received.sha256 => {
                    if follows {
                        whole = Prefix { next: number + 1, hash: next };
                    }
                }
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
                {
                    return Err(error);
                }
                _ => damaged.push(number),
            }
        }
        self.hashed.send_replace(whole.next);
        *prefix = whole;
        Ok(damaged)
    }
}
