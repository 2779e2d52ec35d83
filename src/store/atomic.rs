//! Replacing a file as a whole: the one way in which the server rewrites anything.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Durability, os};

/// Creates a file that must not exist yet, for writing.
///
/// # Errors
/// `AlreadyExists`; what else the system says.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Creates a file for its owner's eyes alone: whole and flushed, or not at all.
///
/// # Errors
/// What the system says.
pub fn create_secret(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    remove_if_there(&temporary)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let written = file.write_all(content).and_then(|()| durability.sync_data(&file));
    let renamed =
        written.and_then(|()| rename_new(&temporary, path)).and_then(|()| sync_parent(path, durability));
    if renamed.is_err() {
        remove_if_there(&temporary)?;
    }
    renamed
}

/// Replaces `path` by what `write` writes: a temporary file beside it, flushed, renamed, the directory flushed.
/// Whoever reads `path` sees the old content or the new one, whole; so does the next start after a crash.
///
/// # Errors
/// What `write` or the system says; `path` is then as it was, and nothing is left behind.
pub fn replace(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let prepared = prepare(path, durability, write)?;
    prepared.publish(durability)
}

/// A whole file beside its future place; removed on drop unless published.
pub struct Prepared {
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

/// Writes and flushes what is to replace `path`, and leaves it beside it.
///
/// # Errors
/// What `write` or the system says; nothing is left behind.
pub fn prepare(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<Prepared> {
    remove_temporary(path)?;
    let temporary = with_suffix(path, ".tmp");
    let file = create_new(&temporary)?;
    let prepared = Prepared { temporary, target: path.to_owned(), published: false };
    let mut writer = BufWriter::with_capacity(1 << 18, &file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    durability.sync_data(&file)?;
    Ok(prepared)
}

/// Removes what a crash has left of a replacement: nobody else writes here, the directory is locked.
///
/// # Errors
/// What the system says.
pub fn remove_temporary(path: &Path) -> io::Result<()> {
    remove_if_there(&with_suffix(path, ".tmp"))
}

impl Prepared {
    /// Takes the name.
    ///
    /// # Errors
    /// What the system says.
    #[expect(clippy::disallowed_methods, reason = "this is the one replace")]
    pub fn publish(mut self, durability: Durability) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.target)?;
        self.published = true;
        sync_parent(&self.target, durability)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = std::fs::remove_file(&self.temporary)
        {
            tracing::warn!(%error, path = %self.temporary.display(), "a temporary file could not be removed");
        }
    }
}

/// Moves a file to another name on the same file system, replacing what is there, and flushes the directory.
///
/// # Errors
/// What the system says.
#[expect(clippy::disallowed_methods, reason = "this is the one move")]
pub fn rename(from: &Path, to: &Path, durability: Durability) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_parent(to, durability)
}

/// Moves a file to a name that must be free, on the same file system. The caller flushes the directory.
///
/// # Errors
/// `AlreadyExists`; what else the system says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    os::rename_new(from, to)
}

/// Gives a whole, flushed file its name. The caller flushes the directory, once for all that it publishes.
///
/// The staged name stays as a second link to the same file: by it, a start after a crash knows what was published and
/// by which upload, whatever anybody else has put there. It is to be removed once the change is written down. Where the
/// file system has no links the file is moved, and after a crash at this very point it counts as foreign.
///
/// # Errors
/// `AlreadyExists` where `new` is asked for and the name is taken; what else the system says. The staged file is then
/// as it was.
#[expect(clippy::disallowed_methods, reason = "this is the one publish")]
pub fn publish(staged: &Path, target: &Path, new: bool) -> io::Result<()> {
    let second = with_suffix(staged, ".publishing");
    let from = match std::fs::hard_link(staged, &second) {
        Ok(()) => second.as_path(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(_) => staged,
    };
    let renamed = if new { os::rename_new(from, target) } else { std::fs::rename(from, target) };
    if renamed.is_err() && from == second {
        remove_if_there(&second)?;
    }
    renamed
}

/// Removes a file, if there is one.
///
/// # Errors
/// What else the system says.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `path` with `suffix` after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync_parent(path: &Path, durability: Durability) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durability.sync_directory(&os::open_directory(parent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, Durability::Power, |file| file.write_all(b"one")).unwrap();
        replace(&path, Durability::Process, |file| file.write_all(b"two")).unwrap();
        let broken = replace(&path, Durability::Power, |file| {
            file.write_all(b"thr")?;
            Err(io::Error::other("in the middle"))
        });
        assert_eq!(broken.unwrap_err().to_string(), "in the middle");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_a_crash_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&with_suffix(&path, ".tmp"), Durability::Process, |file| file.write_all(b"half")).unwrap();
        replace(&path, Durability::Process, |file| file.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn what_is_published_keeps_its_staged_name_and_what_is_refused_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["staged", "taken"] {
            replace(&path(name), Durability::Process, |file| file.write_all(name.as_bytes())).unwrap();
        }
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let refused = publish(&path("staged"), &path("taken"), true).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(), ["staged", "taken"]);
        assert_eq!(std::fs::read(path("taken")).unwrap(), b"taken");
        publish(&path("staged"), &path("taken"), false).unwrap();
        assert_eq!(names(), ["staged", "taken"]);
        assert_eq!(std::fs::read(path("taken")).unwrap(), b"staged");
        let missing = publish(&path("missing"), &path("new"), false).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
