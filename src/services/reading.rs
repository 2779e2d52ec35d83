//! What stands under a name, plain or sealed: read from end to end, and compared with its recorded SHA-256. Blocking.

use std::io;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::crypto::{Keyring, OpenError};
use crate::domain::Digest;
use crate::store::files::{Files, OpenFile};
use crate::store::sealed::{SealedError, SealedFile};
use crate::store::status::FileEntry;

/// At most so many bytes of a plain file are read at once.
const PIECE: usize = 1 << 20;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is recorded, and not there.
    #[error("it is missing")]
    Missing,
    /// It is not what it was.
    #[error("{0}")]
    Damaged(String),
    /// Nothing says what its content should be.
    #[error("no SHA-256 of it is recorded")]
    NotRecorded,
    /// It is sealed under a key that is not there.
    #[error("{0}")]
    UnknownKey(String),
    /// The system does not let us read it.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// What was to take its place can't be stored.
    #[error("it can't be stored: {0}")]
    NotStored(String),
}

impl Fault {
    /// A stable name, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged(_) => "damaged",
            Self::NotRecorded => "not_recorded",
            Self::UnknownKey(_) => "unknown_key",
            Self::Unreadable(_) => "unreadable",
            Self::NotStored(_) => "not_stored",
        }
    }

    /// What was to take its place could not be written.
    pub(super) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::NotStored("there is not enough space in the storage".into()),
            _ => Self::NotStored(error.to_string()),
        }
    }
}

impl From<SealedError> for Fault {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::NoKey | SealedError::Open(OpenError::UnknownKey(_)) => {
                Self::UnknownKey(error.to_string())
            }
            SealedError::Open(_) | SealedError::Swapped => Self::Damaged(error.to_string()),
            SealedError::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::InvalidData => Self::Damaged(error.to_string()),
            io::ErrorKind::UnexpectedEof => Self::Damaged("it has been cut off".into()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// A file that is being read in order, in flat memory. It stays what it was when it was opened.
#[derive(Debug)]
pub(crate) struct Reading {
    form: Form,
    position: u64,
    hasher: Sha256,
    expected: Digest,
}

#[derive(Debug)]
enum Form {
    Plain(OpenFile),
    Sealed(SealedFile),
}

impl Reading {
    /// Opens what stands under the name of this entry, which must have a SHA-256.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn open(files: &Files, keyring: Option<&Keyring>, entry: &FileEntry) -> Result<Self, Fault> {
        let form = if entry.encryption {
            let file = files.open_sealed(&entry.filename)?;
            Form::Sealed(SealedFile::open(file, keyring, entry.seal.as_ref())?)
        } else {
            Form::Plain(files.open(&entry.filename)?)
        };
        let expected = entry.checksum.ok_or(Fault::NotRecorded)?;
        Ok(Self { form, position: 0, hasher: Sha256::new(), expected })
    }

    /// The container, if it is one.
    pub(crate) const fn sealed(&self) -> Option<&SealedFile> {
        match &self.form {
            Form::Plain(_) => None,
            Form::Sealed(file) => Some(file),
        }
    }

    /// The next bytes of the content; none at its end.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn next(&mut self) -> Result<Bytes, Fault> {
        let piece = match &self.form {
            Form::Plain(file) => {
                let mut piece =
                    vec![0; PIECE.min(usize::try_from(file.stored().size).unwrap_or(PIECE)).max(1)];
                let read = file.read_at(&mut piece, self.position)?;
                piece.truncate(read);
                piece.into()
            }
            Form::Sealed(file) => file.read(self.position..file.content_length())?,
        };
        self.hasher.update(&piece);
        self.position += piece.len() as u64;
        Ok(piece)
    }

    /// Compares what was read, all of it, with what is recorded.
    ///
    /// # Errors
    /// [`Fault::Damaged`].
    pub(crate) fn finish(self) -> Result<(), Fault> {
        let actual = Digest::new(self.hasher.finalize().into());
        if actual == self.expected {
            return Ok(());
        }
        Err(Fault::Damaged(format!("its content has the SHA-256 {actual}, not {}", self.expected)))
    }
}
