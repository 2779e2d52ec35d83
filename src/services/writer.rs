//! The bytes of one upload on their way to the disk, plain or sealed. Blocking.

use std::io::{self, IoSlice, Read};
use std::sync::Arc;

use super::space::Space;
use crate::crypto::{self, Ends, FileKey, Sealer};
use crate::domain::{Hex16, Seal, StoredFile, TransferId};
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

/// At most so many pieces go to the disk in one call.
pub(super) const GATHER: usize = 4;

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

/// Writes a data file: as it comes, or as a container. What is sealed touches the disk in no other form.
pub(crate) struct Writer {
    target: Target,
    staged: Staged,
    sealing: Option<Sealing>,
    /// Bytes of plain content.
    length: u64,
}

struct Sealing {
    key: Arc<FileKey>,
    sealer: Sealer,
}

impl Writer {
    /// A writer to the data file of an upload; with a key, it seals.
    pub(crate) fn create(target: Target, key: Option<Arc<FileKey>>) -> io::Result<Self> {
        let staged = Staged::create(&target.layout, target.id, 0)?;
        Self::to(staged, target, key)
    }

    fn to(staged: Staged, target: Target, key: Option<Arc<FileKey>>) -> io::Result<Self> {
        let sealing = key.map(|key| {
            Ok::<_, io::Error>(Sealing {
                sealer: Sealer::chunk(Arc::clone(&key), 0).map_err(io::Error::other)?,
                key,
            })
        });
        let mut writer = Self { target, staged, sealing: sealing.transpose()?, length: 0 };
        writer.reserve(writer.target.expected)?;
        if let Some(sealing) = &writer.sealing {
            writer.staged.append(&mut [IoSlice::new(&sealing.key.header_bytes())])?;
        }
        Ok(writer)
    }

    /// Sets space aside for so many bytes of content.
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let on_disk = match &self.sealing {
            None => length,
            Some(sealing) => {
                let geometry = sealing.key.header().geometry;
                crypto::Layout::of_plaintext(geometry, length).map_err(io::Error::other)?.container_len()
            }
        };
        self.target.space.reserve(&mut self.staged, on_disk)
    }

    /// Takes the next bytes.
    pub(crate) fn append(&mut self, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        self.length += pieces.iter().map(|piece| piece.as_ref().len() as u64).sum::<u64>();
        self.reserve(self.length)?;
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

    /// Everything has come: writes the rest and flushes.
    pub(crate) fn finish(mut self) -> io::Result<Written> {
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
        let mut writer = Writer::to(self.staged.begin_replacement()?, target, key)?;
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
