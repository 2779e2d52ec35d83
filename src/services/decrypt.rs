//! The content of a sealed file, wherever it lies. Blocking.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::writer::copy;
use crate::crypto::{Header, Keyring, OpenError, OpenStream, SingleMessage, SingleMessageError};
use crate::domain::{Digest, TransferId};
use crate::store::files::{OpenFile, Reader};
use crate::store::{Durability, atomic};

/// Why the content can't be had. Nothing of it has been given away.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// Damaged, tampered with, or sealed under another key.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Neither a container nor a whole file in the older format under one of the keys.
    #[error("it is no container, and no file in the older format either: {0}")]
    Older(SingleMessageError),
    /// The sealed file can't be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The content can't be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// Something stands where it is to go.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Stopped,
}

/// How a file was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As this server does.
    Container,
    /// One message for the whole file, as an older server did.
    Older,
}

/// What was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decrypted {
    /// How it was sealed.
    pub format: Format,
    /// Bytes of content.
    pub size: u64,
    /// Their SHA-256.
    pub digest: Digest,
}

/// A sealed file that reads as its content.
enum Content<'f> {
    Container(OpenStream<Reader<'f>>),
    Older(Box<SingleMessage<Reader<'f>>>),
}

impl<'f> Content<'f> {
    fn open(file: &'f OpenFile, keyring: &Keyring) -> Result<Self, DecryptError> {
        let mut first = Vec::new();
        file.reader().take(64).read_to_end(&mut first).map_err(DecryptError::Read)?;
        if Header::begins(&first) {
            return OpenStream::new(file.reader(), keyring).map(Self::Container).map_err(of_reading);
        }
        match SingleMessage::verify(file.reader(), keyring) {
            Ok(message) => Ok(Self::Older(Box::new(message))),
            Err(SingleMessageError::Io(error)) => Err(DecryptError::Read(error)),
            Err(error) => Err(DecryptError::Older(error)),
        }
    }

    const fn format(&self) -> Format {
        match self {
            Self::Container(_) => Format::Container,
            Self::Older(_) => Format::Older,
        }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Container(stream) => stream.read(out),
            Self::Older(message) => message.read(out),
        }
    }
}

/// Writes the content to a new file at `target`: whole, or not at all.
///
/// # Errors
/// [`DecryptError`]; nothing is left behind then.
pub fn to_file(
    sealed: &OpenFile,
    keyring: &Keyring,
    target: &Path,
    stop: &CancellationToken,
) -> Result<Decrypted, DecryptError> {
    if std::fs::symlink_metadata(target).is_ok() {
        return Err(DecryptError::Exists(target.to_owned()));
    }
    let content = Content::open(sealed, keyring)?;
    let part = Part::create(target).map_err(DecryptError::Write)?;
    let decrypted = give(content, &part.file, stop)?;
    Durability::Power.sync_data(&part.file).map_err(DecryptError::Write)?;
    atomic::rename_new(&part.path, target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => DecryptError::Exists(target.to_owned()),
        _ => DecryptError::Write(error),
    })?;
    Ok(decrypted)
}

/// Writes the content to a stream, from which nothing can be taken back: all of it is verified first.
///
/// # Errors
/// [`DecryptError`]; nothing has been written then, but where the stream or the disk fails, or the file is changed meanwhile.
pub fn to_stream(
    sealed: &OpenFile,
    keyring: &Keyring,
    stream: impl Write,
    stop: &CancellationToken,
) -> Result<Decrypted, DecryptError> {
    let content = Content::open(sealed, keyring)?;
    if content.format() == Format::Container {
        // The older format has been verified as a whole by now.
        give(content, io::sink(), stop)?;
    }
    give(Content::open(sealed, keyring)?, stream, stop)
}

fn give(
    mut content: Content<'_>,
    mut to: impl Write,
    stop: &CancellationToken,
) -> Result<Decrypted, DecryptError> {
    let (format, mut size, mut hasher) = (content.format(), 0, Sha256::new());
    let mut failed = None;
    let copied = copy(&mut content, |piece| {
        if stop.is_cancelled() {
            failed = Some(DecryptError::Stopped);
            return Err(io::ErrorKind::Other.into());
        }
        hasher.update(piece);
        size += piece.len() as u64;
        to.write_all(piece).map_err(|error| {
            failed = Some(DecryptError::Write(error));
            io::ErrorKind::Other.into()
        })
    });
    copied.map_err(|error| failed.unwrap_or_else(|| of_reading(error)))?;
    to.flush().map_err(DecryptError::Write)?;
    Ok(Decrypted { format, size, digest: Digest::new(hasher.finalize().into()) })
}

/// An error of a stream that opens what it reads, as what it is.
fn of_reading(error: io::Error) -> DecryptError {
    match error.downcast::<OpenError>() {
        Ok(error) => error.into(),
        Err(error) => match error.downcast::<SingleMessageError>() {
            Ok(error) => DecryptError::Older(error),
            Err(error) => DecryptError::Read(error),
        },
    }
}

/// A file beside its future place; removed on drop, where it still is there.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(target: &Path) -> io::Result<Self> {
        // A name that nobody else has: the directory is not ours.
        let path = atomic::with_suffix(target, &format!(".{}.part", TransferId::new()));
        Ok(Self { file: atomic::create_new(&path)?, path })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Err(error) = atomic::remove_if_there(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "an unfinished file could not be removed");
        }
    }
}
