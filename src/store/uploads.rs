//! Uploads in progress: data files that nobody can see until they are whole.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::files::OpenFile;
use super::{Durability, Layout, atomic, os};
use crate::domain::{FileName, StoredFile, TransferId};

/// The data file of an upload. Dropped, it is removed: what failed or was given up leaves nothing behind.
///
/// What was published has a second name here, which is needed until its change is written down. Should that fail, it is
/// left: by it the next start knows whose file stands there.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    file: File,
    /// Whether the file at `path` is another one by now, or stays whatever becomes of this.
    is_kept: bool,
    /// Up to where it has been written.
    written: u64,
    /// From where on it is written.
    begin: u64,
    /// Bytes for which space was set aside.
    reserved: u64,
    /// Where a chunk begins that is being written. Until it is there, what was written of it is given back when this is
    /// dropped. Not what was set aside: that may reach into the places of others.
    chunk: Option<u64>,
}

impl Staged {
    /// Makes the data file of a new upload and sets space aside for `expected` bytes.
    ///
    /// # Errors
    /// `StorageFull`; what else the system says.
    pub fn create(layout: &Layout, id: TransferId, expected: u64) -> io::Result<Self> {
        let mut staged = Self::at(layout.upload_data(id))?;
        staged.reserve(expected)?;
        Ok(staged)
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        // Readable too: what was stored plain may have to be sealed after all.
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, is_kept: false, written: 0, begin: 0, reserved: 0, chunk: None })
    }

    /// Makes the data file of an upload that may go on later: it stays when this is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub fn create_kept(layout: &Layout, id: TransferId) -> io::Result<Self> {
        let mut staged = Self::at(layout.upload_data(id))?;
        staged.keep();
        Ok(staged)
    }

    /// Opens the data file of an upload that goes on, to write from `position` on. It stays when this is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub fn resume(layout: &Layout, id: TransferId, position: u64) -> io::Result<Self> {
        let path = layout.upload_data(id);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        if os::identity(&file.metadata()?).is_some() {
            // After a flush that failed nobody knows whether that was written down: the next start finds out.
            return Err(io::Error::other("the data of the upload stands under a name already"));
        }
        file.seek(SeekFrom::Start(position))?;
        let (begin, written, reserved) = (position, position, position);
        Ok(Self { path, file, is_kept: true, written, begin, reserved, chunk: None })
    }

    /// The same, to write a chunk in its place.
    ///
    /// # Errors
    /// What the system says.
    pub fn resume_chunk(layout: &Layout, id: TransferId, position: u64) -> io::Result<Self> {
        let mut staged = Self::resume(layout, id, position)?;
        staged.chunk = Some(position);
        Ok(staged)
    }

    /// The chunk is there.
    pub const fn chunk_is_there(&mut self) {
        self.chunk = None;
    }

    /// A new data file that holds a chunk of an upload until it is known where that belongs.
    ///
    /// # Errors
    /// What the system says.
    pub fn chunk(layout: &Layout, id: TransferId, part: TransferId) -> io::Result<Self> {
        Self::at(layout.upload_chunk(id, part))
    }

    /// Cuts off what is beyond: what was written of a piece that was not taken, and space that was set aside for more.
    ///
    /// # Errors
    /// `InvalidData` if there is less: somebody has changed it. What else the system says.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        /// What a file system may need beside the bytes.
        const BESIDE: u64 = 128 << 10;
        let metadata = self.file.metadata()?;
        if metadata.len() < length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the data of the upload is cut short"));
        }
        // Of the same length too, where space beyond the end is to be given back.
        let more = os::allocated(&metadata).is_none_or(|allocated| allocated > length + BESIDE);
        if metadata.len() > length || more { self.file.set_len(length) } else { Ok(()) }
    }

    /// Makes what was written as durable as is promised.
    ///
    /// # Errors
    /// What the system says; the content must then be taken for lost.
    pub fn flush(&self, durability: Durability) -> io::Result<()> {
        durability.sync_data(&self.file)
    }

    /// It stays when this is dropped.
    pub const fn keep(&mut self) {
        self.is_kept = true;
    }

    /// A new, empty data file beside this one, to hold the same content in another form.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin_replacement(&self) -> io::Result<Self> {
        Self::at(atomic::with_suffix(&self.path, ".replacement"))
    }

    /// Puts this replacement in the place of the data file for which it was begun.
    ///
    /// # Errors
    /// What the system says; both are removed then.
    pub fn replace(mut self, mut replaced: Self, durability: Durability) -> io::Result<Self> {
        atomic::rename(&self.path, &replaced.path, durability)?;
        replaced.is_kept = true;
        self.path = std::mem::take(&mut replaced.path);
        Ok(self)
    }

    /// Opens what was appended, to be read.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> io::Result<OpenFile> {
        OpenFile::new(self.file.try_clone()?)
    }

    /// Sets space aside for `length` bytes in all.
    ///
    /// # Errors
    /// `StorageFull`; what else the system says.
    pub fn reserve(&mut self, length: u64) -> io::Result<()> {
        if length > self.reserved {
            os::reserve(&self.file, self.reserved, length - self.reserved)?;
            self.reserved = length;
        }
        Ok(())
    }

    /// Gives back space that was set aside for more than what was appended.
    ///
    /// # Errors
    /// What the system says.
    pub fn give_back(&mut self) -> io::Result<()> {
        if self.reserved > self.written {
            self.file.set_len(self.written)?;
            self.reserved = self.written;
        }
        Ok(())
    }

    /// Whether space has been set aside for it.
    pub const fn has_space(&self) -> bool {
        self.reserved > self.begin
    }

    /// Bytes for which space was set aside.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes that were appended.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Appends.
    ///
    /// # Errors
    /// `StorageFull`; what else the system says. The upload can't go on then.
    pub fn append(&mut self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Nothing to write is no end of the disk.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.file.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.written += written as u64;
                    IoSlice::advance_slices(&mut pieces, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes over what is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut file = &self.file;
        let here = file.stream_position()?;
        file.seek(SeekFrom::Start(position))?;
        file.write_all(bytes)?;
        file.seek(SeekFrom::Start(here)).map(drop)
    }

    /// Ends writing: gives back space that was set aside for more, flushes, and says what there is now.
    ///
    /// # Errors
    /// What the system says; the content must then be taken for lost.
    pub fn finish(&mut self, expected: u64, durability: Durability) -> io::Result<StoredFile> {
        if expected.max(self.reserved) > self.written {
            self.file.set_len(self.written)?;
        }
        // The kernel's own stamp is coarse: two contents of one size within a tick could not be told apart by it.
        self.file.set_modified(std::time::SystemTime::now())?;
        if durability == Durability::Power {
            // Not `sync_data`: the time is part of what is recorded.
            self.file.sync_all()?;
        }
        let metadata = self.file.metadata()?;
        if metadata.len() != self.written {
            return Err(io::Error::other("the data file has been changed by somebody else"));
        }
        Ok(StoredFile { size: self.written, modified: metadata.modified()?.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It has been published, and its change is written down: its name among the uploads goes.
    pub fn published(self) {
        self.remove();
    }

    fn remove(&self) {
        if let Err(error) = atomic::remove_if_there(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "an upload's data could not be removed");
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(position) = self.chunk
            && let Err(error) = os::give_back(&self.file, position, self.written - position)
        {
            tracing::warn!(%error, path = %self.path.display(), "the space of a chunk could not be given back");
        }
        if !self.is_kept && !self.file.metadata().is_ok_and(|metadata| os::identity(&metadata).is_some()) {
            self.remove();
        }
    }
}

/// Flushes the names of the files among the uploads.
///
/// # Errors
/// What the system says.
pub fn flush_names(layout: &Layout, durability: Durability) -> io::Result<()> {
    durability.sync_directory(&os::open_directory(&layout.uploads())?)
}

/// Removes all that there is of an upload.
///
/// # Errors
/// What the system says, once all that can be removed is.
pub fn remove(layout: &Layout, id: TransferId) -> io::Result<()> {
    // First: a start that finds data without a log removes them, and one that finds a log without data tells of damage.
    let mut removed = atomic::remove_if_there(&layout.upload_log(id));
    removed = removed.and(atomic::remove_if_there(&layout.upload_data(id)));
    let prefix = format!("{id}.");
    for entry in std::fs::read_dir(layout.uploads())? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".chunk")) {
            removed = removed.and(atomic::remove_if_there(&entry.path()));
        }
    }
    removed
}

/// Removes the files of single chunks that are not wanted: a crash has left them, between their place and the log.
///
/// # Errors
/// What the system says.
pub fn remove_chunks(layout: &Layout, is_wanted: impl Fn(TransferId, TransferId) -> bool) -> io::Result<()> {
    for entry in std::fs::read_dir(layout.uploads())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".chunk")?.split_once('.'));
        let chunk = name.and_then(|(id, part)| Some((id.parse().ok()?, part.parse().ok()?)));
        if chunk.is_some_and(|(id, part)| !is_wanted(id, part)) {
            atomic::remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Takes a name back that an upload has been given where nothing stood before, if that was not written down.
///
/// # Errors
/// What the system says.
pub fn take_back(layout: &Layout, id: TransferId, name: &FileName) -> io::Result<()> {
    let identity = |path: &Path| std::fs::symlink_metadata(path).ok().as_ref().and_then(os::identity);
    let Some(data) = identity(&layout.upload_data(id)) else { return Ok(()) };
    for target in [layout.file(name), layout.sealed(name)] {
        if identity(&target) == Some(data) {
            atomic::remove_if_there(&target)?;
        }
    }
    Ok(())
}

/// Makes and removes an empty upload, to see whether the storage can be written.
///
/// # Errors
/// What the system says.
pub fn probe(layout: &Layout) -> io::Result<()> {
    Staged::create(layout, TransferId::new(), 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("storage"), dir.path().join("status.json"));
        layout.create().unwrap();
        let id = TransferId::new();
        let mut staged = Staged::create(&layout, id, 1 << 20).unwrap();
        staged.append(&mut [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")]).unwrap();
        staged.append(&mut [IoSlice::new(b""), IoSlice::new(b"")]).unwrap();
        staged.append(&mut []).unwrap();
        assert_eq!(staged.finish(1 << 20, Durability::Power).unwrap().size, 5);
        assert_eq!(std::fs::read(layout.upload_data(id)).unwrap(), b"hello");
        drop(staged);
        assert!(!layout.upload_data(id).exists());
    }

    #[test]
    fn a_published_upload_leaves_nothing_among_the_uploads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("storage"), dir.path().join("status.json"));
        layout.create().unwrap();
        let id = TransferId::new();
        let staged = Staged::create(&layout, id, 0).unwrap();
        atomic::publish(staged.path(), &layout.root().join("a"), true).unwrap();
        staged.published();
        assert_eq!(std::fs::read_dir(layout.uploads()).unwrap().count(), 0);
        assert!(layout.root().join("a").exists());
    }
}
