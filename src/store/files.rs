//! Published files: opened and read, never written.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Layout, os};
use crate::domain::{FileName, StoredFile};

/// The published files of a storage directory.
#[derive(Debug, Clone)]
pub struct Files {
    directory: Arc<File>,
    encrypted: Arc<File>,
    layout: Layout,
}

/// A file that is open for reading. It stays what it is: a new upload of its name makes another file.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    stored: StoredFile,
}

impl Files {
    /// The files of this layout.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(layout: Layout) -> io::Result<Self> {
        let open = |path: &Path| os::open_directory(path).map(Arc::new);
        Ok(Self { directory: open(layout.root())?, encrypted: open(&layout.encrypted())?, layout })
    }

    /// Opens a file if that can be done without waiting for a disk; `None`: use [`Files::open`] on a blocking thread.
    ///
    /// # Errors
    /// `NotFound` if there is no such regular file; what else the system says.
    pub fn open_cached(&self, name: &FileName) -> io::Result<Option<OpenFile>> {
        os::open_cached(&self.directory, name.as_str())?.map(OpenFile::new).transpose()
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` if there is no such regular file; what else the system says.
    pub fn open(&self, name: &FileName) -> io::Result<OpenFile> {
        open_regular(&self.layout.file(name)).and_then(OpenFile::new)
    }

    /// Opens the container of a sealed file.
    ///
    /// # Errors
    /// `NotFound` if there is no such regular file; what else the system says.
    pub fn open_sealed(&self, name: &FileName) -> io::Result<OpenFile> {
        match os::open_cached(&self.encrypted, name.as_str())? {
            Some(file) => OpenFile::new(file),
            None => open_regular(&self.layout.sealed(name)).and_then(OpenFile::new),
        }
    }
}

/// What stands at `path`: size and time of the regular file there; `None` if there is none, a link included.
///
/// # Errors
/// What the system says.
pub fn standing(path: &Path) -> io::Result<Option<StoredFile>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {
            Ok(Some(StoredFile { size: found.len(), modified: found.modified()?.into() }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file, never what a link leads to, and never waiting for a FIFO's other end.
fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed(),
    );
    options.open(path)
}

impl OpenFile {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let stored = StoredFile { size: metadata.len(), modified: metadata.modified()?.into() };
        Ok(Self { file, stored })
    }

    /// Opens a regular file anywhere, never what a link leads to.
    ///
    /// # Errors
    /// `NotFound` if there is no such regular file; what else the system says.
    pub fn at(path: &Path) -> io::Result<Self> {
        open_regular(path).and_then(Self::new)
    }

    /// Reads it from its start.
    pub const fn reader(&self) -> Reader<'_> {
        Reader { file: self, position: 0 }
    }

    /// Size and time of the file as it stands on the disk.
    pub const fn stored(&self) -> &StoredFile {
        &self.stored
    }

    /// Reads at `offset` without waiting for a disk, maybe less than asked for; 0 at the end; `None`: use
    /// [`OpenFile::read_at`] on a blocking thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        os::read_cached(&self.file, buffer, offset)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter; what else the system says.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    offset += read as u64;
                    buffer = &mut buffer[read..];
                }
            }
        }
        Ok(())
    }

    /// Reads at `offset`, maybe less than asked for; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        os::read_at(&self.file, buffer, offset)
    }
}

/// A file that is read in order.
#[derive(Debug)]
pub struct Reader<'f> {
    file: &'f OpenFile,
    position: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl io::Seek for Reader<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::End(offset) => self.file.stored.size.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::atomic;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("storage"), dir.path().join("status.json"));
        layout.create().unwrap();
        let files = Files::new(layout.clone()).unwrap();
        let name = |name: &str| FileName::clean(name).unwrap();
        std::fs::create_dir(layout.file(&name("directory"))).unwrap();
        atomic::replace(&dir.path().join("secret"), super::super::Durability::Process, |_| Ok(())).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret"), layout.file(&name("link"))).unwrap();
        for absent in ["directory", "link", "missing"] {
            let not_found = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
            assert!(files.open(&name(absent)).is_err_and(not_found), "{absent}");
            let cached = files.open_cached(&name(absent));
            assert!(matches!(cached, Ok(None)) || cached.is_err_and(not_found), "{absent}");
        }
    }
}
