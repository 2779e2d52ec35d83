//! Sealing: plaintext in, container bytes and their positions out. The caller writes them.

use std::ops::Range;
use std::sync::Arc;

use super::bytes::Tag;
use super::container::HEADER_LEN;
use super::eax_lanes::LANES;
use super::file_key::FileKey;
use super::keyring::Keyring;
use super::layout::{Geometry, LayoutError, SALT_LEN, SEGMENT_OVERHEAD, TAG_LEN};

/// Why something could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The keyring lacks the key.
    #[error("the key is not in the keyring")]
    NoKey,
    /// Longer than a container can be.
    #[error("too long for a container")]
    TooLong,
    /// A chunk got more bytes than the container's chunk size.
    #[error("more bytes than the chunk has room for")]
    ChunkTooLong,
    /// A chunk that is not the last of its file ended before the container's chunk size.
    #[error("a chunk that is not the last one must be whole")]
    ChunkTooShort,
    /// Nothing was given for the last segment of a file that isn't empty.
    #[error("the last chunk of a file that is not empty must not be empty")]
    EmptyEnd,
    /// Segments were skipped that are not those that come next.
    #[error("only the segments that come next can be skipped")]
    Skip,
    /// A buffer does not hold segments as they stand in this container.
    #[error("the buffer does not hold whole segments")]
    Segments,
    /// The segment to be sealed again is not the one that was sealed at this place.
    #[error("segment {segment} has been tampered with")]
    Tampered {
        /// Its number.
        segment: u64,
    },
}

impl From<LayoutError> for SealError {
    fn from(_: LayoutError) -> Self {
        // The sizes of a geometry are checked when it is made: all that is left is a length.
        Self::TooLong
    }
}

/// What ends with the last segment sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// At most a chunk: more of the file follows, or is sealed elsewhere.
    Chunk,
    /// The file.
    File,
}

/// Container bytes that are ready to be written.
#[derive(Debug)]
pub struct Sealed<'s> {
    /// Where they belong in the container, in bytes.
    pub position: u64,
    /// The bytes.
    pub bytes: &'s [u8],
}

/// What [`Sealer::finish`] leaves to be written.
#[derive(Debug)]
pub struct SealedEnd {
    /// Where the bytes belong in the container.
    pub position: u64,
    /// The bytes: at least one segment.
    pub bytes: Vec<u8>,
    /// Tag of the last segment.
    pub tag: Tag,
}

/// Seals the plaintext of one chunk, or of the rest of a file, that comes in order and in pieces of any size.
///
/// At most as many segments as the batch has ([`LANES`] by default: 512 KiB with the default geometry) wait in memory, and
/// only as much is allocated as has been given. A segment is sealed when it is whole and more follows, since the last one
/// of a file is sealed otherwise. Chunks of one file may be sealed by several sealers at the same time.
///
/// ```
/// # use std::sync::Arc;
/// # use smart_file_transfer::crypto::{Ends, FileKey, Geometry, Keyring, Sealer};
/// # let keyring = Keyring::new("DevKey1234567890", [""; 0])?;
/// # let mut file = Vec::new();
/// # let mut write_at = |position: u64, bytes: &[u8]| {
/// #     assert_eq!(position, file.len() as u64);
/// #     file.extend_from_slice(bytes)
/// # };
/// let key = Arc::new(FileKey::create(&keyring, Geometry::default())?);
/// write_at(0, &key.header_bytes());
/// let mut sealer = Sealer::chunk(key, 0)?;
/// for mut piece in [&b"Hello, "[..], b"world"] {
///     while let Some(sealed) = sealer.push(&mut piece)? {
///         write_at(sealed.position, sealed.bytes);
///     }
/// }
/// let end = sealer.finish(Ends::File)?;
/// write_at(end.position, &end.bytes);
/// # assert_eq!(smart_file_transfer::crypto::open_to_vec(&keyring, &file)?, b"Hello, world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sealer {
    key: Arc<FileKey>,
    /// Number of the first segment in `buffer` (after `emitted` bytes).
    next: u64,
    /// The segment to stop before, where there is one.
    end: Option<u64>,
    /// Segments as they will stand in the container; the last one may be incomplete, and then has no room for its tag.
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that have been sealed and handed out.
    emitted: usize,
    /// Complete segments in `buffer`, but for the emitted ones.
    complete: usize,
    /// Plaintext bytes of the incomplete segment at the end of `buffer`; 0: there is none.
    partial: usize,
    batch: usize,
}

impl Sealer {
    /// Seals a chunk from its start, and takes no more than that chunk.
    ///
    /// # Errors
    /// [`SealError::TooLong`] where the container can't have such a chunk.
    pub fn chunk(key: Arc<FileKey>, chunk: u64) -> Result<Self, SealError> {
        let geometry = key.header().geometry;
        let first = geometry.first_segment_of(chunk)?;
        let end = geometry.segments_per_chunk().map(|segments| first.saturating_add(segments));
        Ok(Self::new(key, first, end))
    }

    /// Seals from a segment on, to wherever the file ends, through all chunks: for uploads that come in order and
    /// may have been interrupted.
    ///
    /// # Errors
    /// [`SealError::TooLong`] where the container can't have such a segment.
    pub fn from_segment(key: Arc<FileKey>, segment: u64) -> Result<Self, SealError> {
        key.header().geometry.segment_position(segment)?;
        Ok(Self::new(key, segment, None))
    }

    /// Seals these segments, all of them whole, and of which none is the last of its file. [`push`](Self::push) gives nothing:
    /// [`finish`](Self::finish) gives all, where [`Ends::Chunk`] may be said. Takes room for all of them at once.
    ///
    /// # Errors
    /// [`SealError::TooLong`] where the container can't have such segments.
    pub fn segments(key: Arc<FileKey>, segments: Range<u64>) -> Result<Self, SealError> {
        let geometry = key.header().geometry;
        let start = geometry.segment_position(segments.start)?;
        let len = geometry.segment_position(segments.end)?.checked_sub(start).ok_or(SealError::TooLong)?;
        let mut sealer = Self::new(key, segments.start, Some(segments.end)).with_batch(usize::MAX);
        sealer.buffer.reserve_exact(len as usize);
        Ok(sealer)
    }

    fn new(key: Arc<FileKey>, next: u64, end: Option<u64>) -> Self {
        Self { key, next, end, buffer: Vec::new(), emitted: 0, complete: 0, partial: 0, batch: LANES }
    }

    /// Lets so many segments wait before they are sealed together; at least 1. [`LANES`] is fastest, fewer need less
    /// memory.
    #[must_use]
    pub fn with_batch(mut self, segments: usize) -> Self {
        self.batch = segments.max(1);
        self
    }

    /// Takes plaintext from the front of `input`: all of it, or as much as makes a batch, which then has to be written.
    ///
    /// `None` means that `input` has been taken whole.
    ///
    /// # Errors
    /// [`SealError::ChunkTooLong`], [`SealError::TooLong`], [`SealError::Random`]. The sealer is of no more use then.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Sealed<'_>>, SealError> {
        self.drop_emitted();
        while !input.is_empty() {
            if self.partial == 0 && self.complete >= self.batch {
                return self.emit(self.complete).map(Some);
            }
            let number = self.next + self.complete as u64;
            if self.end == Some(number) {
                return Err(SealError::ChunkTooLong);
            }
            if self.partial == 0 {
                self.key.header().geometry.segment_position(number)?;
                self.buffer.extend_from_slice(&[0; SALT_LEN]);
            }
            let whole = self.key.header().geometry.whole_segment_len(number);
            let (taken, rest) = input.split_at(input.len().min(whole - self.partial));
            *input = rest;
            self.buffer.extend_from_slice(taken);
            self.partial += taken.len();
            if self.partial == whole {
                self.buffer.extend_from_slice(&[0; TAG_LEN]);
                self.partial = 0;
                self.complete += 1;
            }
        }
        Ok(None)
    }

    /// Seals what can be sealed without knowing whether more follows: all but the last segment begun.
    ///
    /// What is left is [`tail`](Self::tail). For an upload that pauses: with the segments written and the tail kept
    /// elsewhere (sealed on its own, say by [`seal_to_vec`]), a new sealer goes on after a restart.
    ///
    /// # Errors
    /// [`SealError::Random`], [`SealError::TooLong`].
    pub fn flush(&mut self) -> Result<Option<Sealed<'_>>, SealError> {
        self.drop_emitted();
        let ready = if self.partial > 0 { self.complete } else { self.complete.saturating_sub(1) };
        if ready == 0 { Ok(None) } else { self.emit(ready).map(Some) }
    }

    /// The plaintext, after a [`flush`](Self::flush), that is not sealed yet: at most a segment, that of number
    /// [`next_segment`](Self::next_segment). **Not encrypted**: keep it out of files.
    pub fn tail(&self) -> &[u8] {
        let waiting = &self.buffer[self.emitted..];
        let len =
            if self.partial > 0 { self.partial } else { waiting.len().saturating_sub(SEGMENT_OVERHEAD) };
        waiting.get(SALT_LEN..SALT_LEN + len).unwrap_or_default()
    }

    /// Number of the first segment that has not been handed out.
    pub const fn next_segment(&self) -> u64 {
        self.next
    }

    /// Goes on behind `segments`, which another sealer of this container has sealed. Gives what waited of those before, which is
    /// to be written: more of the file follows on that.
    ///
    /// # Errors
    /// [`SealError::Skip`] where they do not follow on what was pushed, or that ends within a segment;
    /// [`SealError::Random`], [`SealError::TooLong`].
    pub fn skip(&mut self, segments: Range<u64>) -> Result<Option<Sealed<'_>>, SealError> {
        self.drop_emitted();
        if self.partial > 0
            || self.next + self.complete as u64 != segments.start
            || segments.end < segments.start
        {
            return Err(SealError::Skip);
        }
        let waited = match self.complete {
            0 => None,
            complete => Some(self.emit(complete)?.position),
        };
        self.next = segments.end;
        Ok(waited.map(|position| Sealed { position, bytes: &self.buffer[..self.emitted] }))
    }

    /// Number of the segment that it stops before, where there is one: that behind the chunk.
    pub const fn end_segment(&self) -> Option<u64> {
        self.end
    }

    /// Seals the rest. `ends` says whether the file ends here.
    ///
    /// # Errors
    /// [`SealError::ChunkTooShort`] where the file does not end here and the chunk isn't whole (or there is no end to
    /// the chunk); [`SealError::EmptyEnd`] where the file ends here, isn't empty, and nothing is left for its last
    /// segment ([`FileKey::reseal_as_last`] helps); [`SealError::Random`], [`SealError::TooLong`].
    pub fn finish(mut self, ends: Ends) -> Result<SealedEnd, SealError> {
        self.drop_emitted();
        if self.partial > 0 {
            self.buffer.extend_from_slice(&[0; TAG_LEN]);
        }
        let at_end = self.partial == 0 && self.end == Some(self.next + self.complete as u64);
        match ends {
            Ends::Chunk if !at_end => return Err(SealError::ChunkTooShort),
            Ends::File if self.buffer.is_empty() && self.next > 0 => return Err(SealError::EmptyEnd),
            Ends::File if self.buffer.is_empty() => self.buffer.resize(SEGMENT_OVERHEAD, 0),
            _ => {}
        }
        let position = self.key.header().geometry.segment_position(self.next)?;
        let tag = self.key.seal_segments(self.next, ends, &mut self.buffer)?;
        Ok(SealedEnd { position, bytes: self.buffer, tag })
    }

    /// Seals and hands out the first `count` complete segments.
    fn emit(&mut self, count: usize) -> Result<Sealed<'_>, SealError> {
        let geometry = self.key.header().geometry;
        let position = geometry.segment_position(self.next)?;
        let after = geometry.segment_position(self.next + count as u64)?;
        let len = (after - position) as usize;
        self.key.seal_segments(self.next, Ends::Chunk, &mut self.buffer[..len])?;
        self.next += count as u64;
        self.complete -= count;
        self.emitted = len;
        Ok(Sealed { position, bytes: &self.buffer[..len] })
    }

    fn drop_emitted(&mut self) {
        self.buffer.drain(..std::mem::take(&mut self.emitted));
    }
}

impl std::fmt::Debug for Sealer {
    /// Without the plaintext that waits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("key", &self.key).field("next", &self.next).finish_non_exhaustive()
    }
}

/// Seals something small, such as a thumbnail or the tail of a paused upload, as a container of its own.
///
/// # Errors
/// [`SealError::Random`].
pub fn seal_to_vec(keyring: &Keyring, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = Arc::new(FileKey::create(keyring, Geometry::default())?);
    let mut container = Vec::with_capacity(HEADER_LEN + plaintext.len() + SEGMENT_OVERHEAD);
    container.extend_from_slice(&key.header_bytes());
    let mut sealer = Sealer::chunk(key, 0)?;
    let mut input = plaintext;
    while let Some(sealed) = sealer.push(&mut input)? {
        container.extend_from_slice(sealed.bytes);
    }
    container.append(&mut sealer.finish(Ends::File)?.bytes);
    Ok(container)
}
