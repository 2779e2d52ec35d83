//! A download on its way: `PATH.part`, and `PATH.part.json` with what it is a part of.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::client::disk;
use crate::domain::Digest;

/// Which version of which file the bytes of a `.part` file are: the whole content of `PATH.part.json`.
///
/// It is written before the first byte of that version, and after the bytes of any other one are gone: at no time does it
/// speak of bytes that are not of its version. One that was cut off by a crash is no JSON, and counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// 1. Another number is of another version of this program: the download starts anew.
    pub(super) format: u8,
    /// What was asked for: the same tag means something else at another address.
    pub(super) url: String,
    /// The strong ETag. Without one, nothing can be resumed.
    pub(super) etag: Option<String>,
    /// Bytes in all.
    pub(super) total: Option<u64>,
    /// SHA-256 of the whole.
    pub(super) sha256: Option<Digest>,
}

impl Version {
    pub(super) const FORMAT: u8 = 1;
}

/// The open, locked `.part` file of a destination.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: File,
    destination: PathBuf,
    path: PathBuf,
    state: PathBuf,
    published: bool,
}

/// Why there is no [`Part`].
#[derive(Debug)]
pub(super) enum Unopened {
    /// Another process has it.
    Busy(PathBuf),
    /// Something that is no regular file stands in the way.
    NotAFile(PathBuf),
    Io(PathBuf, io::Error),
}

impl Part {
    /// Opens the `.part` file of `destination`, or makes it, and locks it until it is dropped. A destination that is a symbolic
    /// link is what the link leads to.
    pub(super) fn open(destination: &Path) -> Result<Self, Unopened> {
        let destination = match std::fs::symlink_metadata(destination) {
            Ok(metadata) if metadata.is_symlink() => {
                std::fs::canonicalize(destination).unwrap_or_else(|_| destination.to_owned())
            }
            _ => destination.to_owned(),
        };
        if std::fs::metadata(&destination).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Unopened::NotAFile(destination));
        }
        let path = beside(&destination, ".part");
        let state = beside(&destination, ".part.json");
        for path in [&path, &state] {
            // A link would lead the bytes to where whoever made it wants them.
            if std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
                return Err(Unopened::NotAFile(path.clone()));
            }
        }
        let failed = |error| Unopened::Io(path.clone(), error);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(Unopened::Busy(path)),
                // A file system that has no locks.
                Err(TryLockError::Error(_)) | Ok(()) => (),
            }
            // Between opening and locking, the process that had it may have published it.
            match disk::is_still_at(&file, &path) {
                Ok(true) => return Ok(Self { file, destination, path, state, published: false }),
                Ok(false) => (),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The version that was kept beside it.
    pub(super) fn version(&self) -> Option<Version> {
        serde_json::from_slice(&std::fs::read(&self.state).ok()?).ok()
    }

    /// Drops all bytes, and keeps the version that those to come are of.
    pub(super) fn start(&mut self, version: &Version) -> io::Result<()> {
        self.clear()?;
        let mut state = OpenOptions::new().write(true).create(true).truncate(true).open(&self.state)?;
        state.write_all(&serde_json::to_vec_pretty(version)?)
    }

    /// Drops all bytes, and what they were of.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// Gives the bytes, which are whole, their name, in one step; what had that name before is gone.
    pub(super) fn publish(&mut self) -> io::Result<&Path> {
        if let Ok(replaced) = std::fs::metadata(&self.destination) {
            // Who may read the old file may read the new one. Not every file system knows of it.
            let _ = self.file.set_permissions(replaced.permissions());
        }
        self.file.sync_all()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the user's own file, not one of the storage directory"
        )]
        std::fs::rename(&self.path, &self.destination)?;
        self.published = true;
        // From here on the file is there: what fails now would be told of a download that went well.
        let _ = std::fs::remove_file(&self.state);
        let directory = self.destination.parent().filter(|parent| !parent.as_os_str().is_empty());
        let _ = disk::sync_directory(directory.unwrap_or(Path::new(".")));
        Ok(&self.destination)
    }
}

/// A part without a byte is of no use to anybody.
impl Drop for Part {
    fn drop(&mut self) {
        if !self.published && self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = std::fs::remove_file(&self.state);
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `path` with more at its end; a name that would become too long for a file system is cut, and told from others by its hash.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    const LONGEST: usize = 255;
    let name = path.file_name().unwrap_or_default();
    let mut longer = OsString::from(name);
    if name.len() + ".part.json".len() > LONGEST {
        let hash = Sha256::digest(name.as_encoded_bytes());
        let kept: String = name.to_string_lossy().chars().take(40).collect();
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        longer = format!("{kept}.{hash}").into();
    }
    longer.push(suffix);
    path.with_file_name(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_are_never_too_long() {
        assert_eq!(beside(Path::new("/d/a.txt"), ".part"), Path::new("/d/a.txt.part"));
        let longest = "é".repeat(122);
        assert_eq!(beside(Path::new(&longest), ".part").as_os_str().len(), 249);
        let names: Vec<_> = ["x", "y"]
            .map(|end| beside(Path::new(&format!("{}{end}", "日".repeat(84))), ".part.json"))
            .into();
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.as_os_str().len() <= 255));
    }

    #[test]
    fn one_part_is_for_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("a");
        let part = Part::open(&destination).unwrap();
        assert!(matches!(Part::open(&destination), Err(Unopened::Busy(_))));
        drop(part);
        assert!(Part::open(&destination).is_ok());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "an empty part is removed");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_way_is_not_followed_and_one_as_destination_is() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(at("elsewhere"), at("a.part")).unwrap();
        assert!(matches!(Part::open(&at("a")), Err(Unopened::NotAFile(_))));

        OpenOptions::new().write(true).create_new(true).open(at("real")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        let mut part = Part::open(&at("link")).unwrap();
        part.file.write_all(b"new").unwrap();
        part.publish().unwrap();
        assert_eq!(std::fs::read(at("real")).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
    }
}
