//! The bytes of one upload on their way to the disk, plain or sealed. Blocking.

use std::io::{self, IoSlice, Read};
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::piece::Piece;
use super::space::Space;
use crate::crypto::{self, Ends, FileKey, SealError, Sealer};
use crate::domain::{Hex16, Seal, StoredFile, TransferId};
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

/// At most so many pieces go to the disk in one call.
const GATHER: usize = 8;

/// Where the bytes of an upload go.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) layout: Layout,
    pub(crate) id: TransferId,
    /// About so many bytes are to come; 0: not known.
    pub(crate) expected: u64,
    pub(crate) space: Space,
    pub(crate) durability: Durability,
}

/// A whole, flushed upload that has no name yet.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) staged: Staged,
    pub(crate) file: StoredFile,
    pub(crate) seal: Option<Seal>,
}

/// Which bytes of an upload are written, and how.
#[derive(Clone)]
pub(crate) enum Opening {
    /// All of them, to a new data file; with a key, it seals.
    New(Option<Arc<FileKey>>),
    /// Those from `offset` on. Of a sealed upload, the last ones before do not fill a segment yet: they are its `tail`.
    Resume { key: Option<Arc<FileKey>>, offset: u64, tail: Arc<Zeroizing<Vec<u8>>> },
    /// Those of a chunk, in its place. `size` is that of all chunks but the last.
    Chunk { key: Option<Arc<FileKey>>, number: u32, size: u64 },
    /// Those of a chunk whose place is not known yet, to a data file of its own.
    Part { key: Option<Arc<FileKey>>, part: TransferId },
}

impl Opening {
    /// What is sealed with.
    const fn key(&self) -> Option<&Arc<FileKey>> {
        let (Self::New(key) | Self::Resume { key, .. } | Self::Chunk { key, .. } | Self::Part { key, .. }) =
            self;
        key.as_ref()
    }

    /// Plain bytes that the writing begins with, since they are not sealed yet.
    pub(super) fn tail(&self) -> &[u8] {
        match self {
            Self::Resume { key: Some(_), tail, .. } => tail,
            _ => &[],
        }
    }

    /// The key, if it is sealed, and a sealer that begins where the writing does: with the [tail](Self::tail).
    pub(super) fn sealer(&self) -> Result<Option<(Arc<FileKey>, Sealer)>, SealError> {
        let Some(key) = self.key() else { return Ok(None) };
        let own = Arc::clone(key);
        let sealer = match self {
            Self::New(_) | Self::Part { .. } => Sealer::chunk(own, 0),
            Self::Resume { offset, tail, .. } => {
                let begin = offset.saturating_sub(tail.len() as u64);
                let segment_size = own.header().geometry.segment_size();
                Sealer::from_segment(own, begin / u64::from(segment_size))
            }
            Self::Chunk { number, .. } => Sealer::chunk(own, (*number).into()),
        };
        Ok(Some((Arc::clone(key), sealer?)))
    }
}

/// Writes a data file: as it comes, or as a container. What is sealed touches the disk in no other form.
pub(crate) struct Writer {
    target: Target,
    staged: Staged,
    sealing: Option<Sealing>,
    /// Up to where there is plain content.
    length: u64,
    /// Bytes of that which have not been given to be written: they will come sealed.
    unwritten: u64,
    /// Where the writing began: in the plain content, and in the data file.
    begin: (u64, u64),
}

struct Sealing {
    key: Arc<FileKey>,
    sealer: Sealer,
}

impl Sealing {
    fn begin(opening: &Opening) -> io::Result<Option<Self>> {
        let sealer = opening.sealer().map_err(io::Error::other)?;
        Ok(sealer.map(|(key, sealer)| Self { key, sealer }))
    }

    /// Where in the data file that is which is sealed next.
    fn position(&self) -> io::Result<u64> {
        let geometry = self.key.header().geometry;
        geometry.segment_position(self.sealer.next_segment()).map_err(io::Error::other)
    }
}

impl Writer {
    /// A writer to the data file of a new upload; with a key, it seals.
    pub(crate) fn create(target: Target, key: Option<Arc<FileKey>>) -> io::Result<Self> {
        Self::open(target, Opening::New(key))
    }

    pub(crate) fn open(target: Target, opening: Opening) -> io::Result<Self> {
        let sealing = Sealing::begin(&opening)?;
        let place = |plain| sealing.as_ref().map_or(Ok(plain), Sealing::position);
        match opening {
            Opening::New(_) => {
                let staged = Staged::create(&target.layout, target.id, 0)?;
                Self::to(staged, target, sealing)
            }
            Opening::Part { part, .. } => {
                let staged = Staged::chunk(&target.layout, target.id, part)?;
                Self::to(staged, target, sealing)
            }
            Opening::Resume { offset, .. } => {
                let tail = opening.tail();
                let begin = offset.saturating_sub(tail.len() as u64);
                let position = place(begin)?;
                let staged = Staged::resume(&target.layout, target.id, position)?;
                staged.cut(position)?;
                let mut writer = Self::from(staged, target, sealing, begin)?;
                writer.append(&[tail])?;
                Ok(writer)
            }
            Opening::Chunk { number, size, .. } => {
                let start = size.saturating_mul(number.into());
                let staged = Staged::resume_chunk(&target.layout, target.id, place(start)?)?;
                Self::from(staged, target, sealing, start)
            }
        }
    }

    fn to(staged: Staged, target: Target, sealing: Option<Sealing>) -> io::Result<Self> {
        let header = sealing.as_ref().map(|sealing| sealing.key.header_bytes());
        let mut writer = Self::from(staged, target, sealing, 0)?;
        if let Some(header) = header {
            writer.staged.append(&mut [IoSlice::new(&header)])?;
        }
        Ok(writer)
    }

    fn from(staged: Staged, target: Target, sealing: Option<Sealing>, begin: u64) -> io::Result<Self> {
        let begin = (begin, staged.written());
        let mut writer = Self { target, staged, sealing, length: begin.0, unwritten: 0, begin };
        writer.reserve(begin.0 + writer.target.expected)?;
        Ok(writer)
    }

    /// Sets space aside for plain content up to here.
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let (from, position) = self.begin;
        let content = length - from;
        let on_disk = match &self.sealing {
            None => content,
            Some(sealing) => {
                let geometry = sealing.key.header().geometry;
                crypto::Layout::of_plaintext(geometry, content).map_err(io::Error::other)?.container_len()
            }
        };
        self.target.space.reserve(&mut self.staged, position.saturating_add(on_disk))
    }

    /// Takes what is next of an upload.
    pub(super) fn take(&mut self, pieces: &[Piece]) -> io::Result<()> {
        let go_together = |one: &Piece, next: &Piece| matches!((one, next), (Piece::Data(_), Piece::Data(_)));
        for pieces in pieces.chunk_by(go_together) {
            match pieces {
                [Piece::Hash(bytes)] => self.expect(bytes.len())?,
                [Piece::Sealed { segments, bytes }] => self.append_sealed(segments, bytes)?,
                [Piece::Write(bytes)] => self.write(&[bytes])?,
                data => self.append(&data.iter().filter_map(Piece::hashed).collect::<Vec<_>>())?,
            }
        }
        Ok(())
    }

    /// Takes the next bytes.
    pub(crate) fn append(&mut self, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        self.expect(pieces.iter().map(|piece| piece.as_ref().len()).sum())?;
        self.write(pieces)
    }

    /// So many bytes of plain content have come, and will be given to be written.
    fn expect(&mut self, bytes: usize) -> io::Result<()> {
        self.length += bytes as u64;
        self.unwritten += bytes as u64;
        self.reserve(self.length)
    }

    /// So many of those are.
    fn given(&mut self, bytes: u64) -> io::Result<()> {
        self.unwritten = self.unwritten.checked_sub(bytes).ok_or_else(out_of_step)?;
        Ok(())
    }

    /// That all are.
    fn expect_no_more(&self) -> io::Result<()> {
        if self.unwritten == 0 { Ok(()) } else { Err(out_of_step()) }
    }

    fn write(&mut self, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        self.given(pieces.iter().map(|piece| piece.as_ref().len() as u64).sum())?;
        let Some(sealing) = &mut self.sealing else {
            for pieces in pieces.chunks(GATHER) {
                let mut slices = [IoSlice::new(&[]); GATHER];
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece.as_ref());
                }
                self.staged.append(&mut slices[..pieces.len()])?;
            }
            return Ok(());
        };
        for piece in pieces {
            let mut piece = piece.as_ref();
            while let Some(sealed) = sealing.sealer.push(&mut piece).map_err(io::Error::other)? {
                self.staged.append(&mut [IoSlice::new(sealed.bytes)])?;
            }
        }
        Ok(())
    }

    /// Takes segments that were sealed [elsewhere](super::ahead).
    fn append_sealed(&mut self, segments: &Range<u64>, bytes: &[u8]) -> io::Result<()> {
        let sealing = self.sealing.as_mut().ok_or_else(out_of_step)?;
        let waited = sealing.sealer.skip(segments.clone()).map_err(io::Error::other)?;
        let waited = IoSlice::new(waited.map(|sealed| sealed.bytes).unwrap_or_default());
        self.staged.append(&mut [waited, IoSlice::new(bytes)])?;
        let geometry = sealing.key.header().geometry;
        self.given(segments.clone().map(|segment| geometry.whole_segment_len(segment) as u64).sum())
    }

    /// What was written stays when this is dropped. Gives the key that it is sealed with.
    pub(crate) fn keep(&mut self) -> Option<Arc<FileKey>> {
        self.staged.keep();
        self.sealing.as_ref().map(|sealing| Arc::clone(&sealing.key))
    }

    /// Up to where there is plain content.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Writes what can be written: all but the [tail](Self::tail).
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.expect_no_more()?;
        if let Some(sealing) = &mut self.sealing
            && let Some(sealed) = sealing.sealer.flush().map_err(io::Error::other)?
        {
            self.staged.append(&mut [IoSlice::new(sealed.bytes)])?;
        }
        Ok(())
    }

    /// Gives back space that was set aside for more than has come.
    pub(crate) fn give_back(&mut self) -> io::Result<()> {
        self.staged.give_back()
    }

    /// Makes what was written as durable as is promised.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.staged.flush(self.target.durability)
    }

    /// What is not written once it has [settled](Self::settle): plain bytes of a segment that may be the last one, and is sealed otherwise then.
    pub(crate) fn tail(&self) -> &[u8] {
        self.sealing.as_ref().map(|sealing| sealing.sealer.tail()).unwrap_or_default()
    }

    /// A chunk has come whole: writes the rest of it and flushes. `ends` says whether the file ends with it.
    pub(crate) fn finish_chunk(mut self, ends: Ends) -> io::Result<()> {
        self.expect_no_more()?;
        // Of a last chunk that is empty there is nothing to seal: it is up to the one before to end the file.
        let is_empty = self.length == self.begin.0 && self.length > 0;
        if let Some(Sealing { sealer, .. }) = self.sealing.filter(|_| !is_empty) {
            let end = sealer.finish(ends).map_err(io::Error::other)?;
            self.staged.append(&mut [IoSlice::new(&end.bytes)])?;
        }
        self.staged.flush(self.target.durability)?;
        self.staged.chunk_is_there();
        Ok(())
    }

    /// Everything has come: writes the rest and flushes.
    pub(crate) fn finish(mut self) -> io::Result<Written> {
        self.expect_no_more()?;
        let seal = match self.sealing {
            None => None,
            Some(Sealing { key, sealer }) => {
                let end = sealer.finish(Ends::File).map_err(io::Error::other)?;
                self.staged.append(&mut [IoSlice::new(&end.bytes)])?;
                let nonce = Hex16(*key.header().file_nonce.as_bytes());
                Some(Seal { nonce, tag: Hex16(*end.tag.as_bytes()) })
            }
        };
        let file = self.staged.finish(self.target.expected, self.target.durability)?;
        let file = StoredFile { size: self.length, ..file };
        Ok(Written { staged: self.staged, file, seal })
    }
}

impl Written {
    /// The same content in the other form, in the place of this: sealed under `key`, or plain.
    pub(crate) fn convert(
        self,
        target: Target,
        key: Option<Arc<FileKey>>,
        keyring: &crypto::Keyring,
    ) -> io::Result<Self> {
        let durability = target.durability;
        let target = Target { expected: self.file.size, ..target };
        let mut writer =
            Writer::to(self.staged.begin_replacement()?, target, Sealing::begin(&Opening::New(key))?)?;
        let open = self.staged.open()?;
        match self.seal {
            None => copy(open.reader(), |piece| writer.append(&[piece]))?,
            Some(_) => {
                let plain = crypto::OpenStream::new(open.reader(), keyring)?;
                copy(plain, |piece| writer.append(&[piece]))?;
            }
        }
        let written = writer.finish()?;
        Ok(Self { staged: written.staged.replace(self.staged, durability)?, ..written })
    }
}

fn out_of_step() -> io::Error {
    io::Error::other("what was sealed is not what was hashed")
}

/// Reads to the end, in flat memory.
pub(crate) fn copy(mut from: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
