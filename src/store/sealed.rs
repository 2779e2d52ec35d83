//! Sealed files, read from any place: only the segments that are touched are opened.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::buffers::{Buffer, Pool};
use super::files::OpenFile;
use crate::crypto::layout::DEFAULT_SEGMENT_SIZE;
use crate::crypto::{HEADER_LEN, Keyring, LANES, OpenError, Opener, SEGMENT_OVERHEAD};
use crate::domain::{Hex16, Seal};

/// The most bytes of content that are opened at once: as many of the usual segments as are fastest. Half a MiB stays in
/// the processor's second-level cache until it is sent.
const PIECE: usize = LANES * DEFAULT_SEGMENT_SIZE as usize;

/// Where the nonce stands in a header (docs/CONTAINER.md).
const NONCE_AT: u64 = 24;

/// What a piece takes in a container with the usual segments.
static BUFFERS: Pool = Pool::new(PIECE + LANES * SEGMENT_OVERHEAD, 8);

/// A container whose end has been verified: it is as long as it was sealed.
#[derive(Debug)]
pub struct SealedFile {
    file: OpenFile,
    opener: Opener,
    seal: Seal,
}

/// Why a sealed file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// Damaged, tampered with, or sealed under another key.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A genuine container, but not the one that is recorded under this name.
    #[error("it is not the container that was stored under this name")]
    Swapped,
    /// Nothing has been sealed by this server, or its key is gone.
    #[error("there is no key to open it with")]
    NoKey,
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Which container this claims to be; nothing of it is verified. Of what is too short for one, whatever is there.
///
/// # Errors
/// What the system says.
pub fn seal_of(file: &OpenFile) -> io::Result<Seal> {
    const LEN: usize = 16;
    let (mut nonce, mut tag) = ([0; LEN], [0; LEN]);
    let length = file.stored().size;
    if length >= HEADER_LEN as u64 {
        file.read_exact_at(&mut nonce, NONCE_AT)?;
        file.read_exact_at(&mut tag, length - LEN as u64)?;
    }
    Ok(Seal { nonce: Hex16(nonce), tag: Hex16(tag) })
}

impl SealedFile {
    /// Opens a container and verifies its end; it must be the one that is `recorded`, if one is. Blocking.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn open(
        file: OpenFile,
        keyring: Option<&Keyring>,
        recorded: Option<&Seal>,
    ) -> Result<Self, SealedError> {
        let keyring = keyring.ok_or(SealedError::NoKey)?;
        let length = file.stored().size;
        let mut header = [0; HEADER_LEN];
        let header = &mut header[..HEADER_LEN.min(usize::try_from(length).unwrap_or(HEADER_LEN))];
        file.read_exact_at(header, 0)?;
        let opener = Opener::new(header, length, keyring)?;
        let last = opener.layout().segment(opener.layout().segments() - 1).map_err(OpenError::from)?;
        let mut segment = vec![0; last.sealed_len()];
        file.read_exact_at(&mut segment, last.position)?;
        let tag = segment.last_chunk().copied().unwrap_or_default();
        opener.verify_end(&mut segment)?;
        let seal = Seal { nonce: Hex16(*opener.header().file_nonce.as_bytes()), tag: Hex16(tag) };
        // The last segment may have been sealed again under the same nonce: the tag tells them apart.
        if recorded.is_some_and(|recorded| *recorded != seal) {
            return Err(SealedError::Swapped);
        }
        Ok(Self { file, opener, seal })
    }

    /// Bytes of content.
    pub const fn content_length(&self) -> u64 {
        self.opener.layout().plaintext_len()
    }

    /// Which container it is.
    pub const fn seal(&self) -> Seal {
        self.seal
    }

    /// Whether it was sealed under the keyring's present key.
    pub fn is_current(&self, keyring: &Keyring) -> bool {
        self.opener.header().key_id == keyring.current_id()
    }

    /// The file of the container.
    pub const fn file(&self) -> &OpenFile {
        &self.file
    }

    /// Gives the file back.
    pub fn into_file(self) -> OpenFile {
        self.file
    }

    /// What of a range is best [read](Self::read) at once: from its start on, at least a byte unless it is empty.
    pub fn piece(&self, range: Range<u64>) -> Range<u64> {
        // Up to where a piece ends that begins with the segment in which this begins; a segment at least, however large.
        let segment = u64::from(self.opener.layout().geometry().segment_size());
        let most = segment.max(PIECE as u64);
        range.start..range.end.min(range.start + most - range.start % segment)
    }

    /// The content from `range.start` on, up to `range.end` or less: all of it where it is a [piece](Self::piece). Blocking.
    ///
    /// # Errors
    /// `InvalidData` with an [`OpenError`] in it where it has been damaged or tampered with; what else the system says.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut sealed = self.touch(range)?;
        self.file.read_exact_at(sealed.buffer.as_mut(), sealed.position)?;
        self.open_read(sealed)
    }

    /// Reads what is to be opened for [`open_read`](Self::open_read), if it is in the page cache: it waits for no disk. `None`:
    /// [read](Self::read) it on a blocking thread.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_cached(&self, range: Range<u64>) -> io::Result<Option<Sealed>> {
        let mut sealed = self.touch(range)?;
        let buffer = sealed.buffer.as_mut();
        let read = self.file.read_cached(buffer, sealed.position)?;
        Ok((read == Some(buffer.len())).then_some(sealed))
    }

    /// What has to be read for this.
    fn touch(&self, range: Range<u64>) -> io::Result<Sealed> {
        let piece = self.piece(range);
        let length = usize::try_from(piece.end - piece.start).unwrap_or(PIECE);
        let touched = self.opener.layout().touched(piece).map_err(|error| invalid(error.into()))?;
        let sealed = usize::try_from(touched.container.end - touched.container.start).unwrap_or(usize::MAX);
        Ok(Sealed {
            buffer: BUFFERS.take(sealed),
            position: touched.container.start,
            first: touched.segments.start,
            content: touched.skip..touched.skip + length,
        })
    }

    /// The content of what was read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn open_read(&self, mut sealed: Sealed) -> io::Result<Bytes> {
        self.opener.open_segments(sealed.first, sealed.buffer.as_mut()).map_err(invalid)?;
        Ok(sealed.buffer.into_bytes(sealed.content.end).slice(sealed.content.start..))
    }
}

/// Segments of a container that were read, and what of their content is wanted.
pub struct Sealed {
    buffer: Buffer,
    position: u64,
    first: u64,
    content: Range<usize>,
}

fn invalid(error: OpenError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
