//! What only Linux has, with a portable fallback beside it: both have the same functions and pass the same tests.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", expect(unreachable_pub, reason = "compiled for its tests"))]
mod portable;

#[cfg(target_os = "linux")]
pub use linux::{give_back, open_cached, read_cached, rename_new, reserve};
#[cfg(not(target_os = "linux"))]
pub use portable::{give_back, open_cached, read_cached, rename_new, reserve};

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// Reads at `offset`, blocking where it must; 0 at the end of the file. The file's own position is of no account.
///
/// # Errors
/// What the system says.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, buffer, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, buffer, offset);
}

/// Opens a directory, to flush it or to open files below it.
///
/// # Errors
/// What the system says.
pub fn open_directory(path: &Path) -> io::Result<File> {
    #[cfg(windows)]
    {
        // FILE_FLAG_BACKUP_SEMANTICS, without which Windows opens no directory.
        use std::os::windows::fs::OpenOptionsExt;
        return std::fs::OpenOptions::new().read(true).custom_flags(0x0200_0000).open(path);
    }
    #[cfg(not(windows))]
    File::open(path)
}

/// Flushes a directory. Windows has no such call and keeps names by its own log: nothing is done there.
///
/// # Errors
/// What the system says.
pub fn sync_directory(directory: &File) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { directory.sync_all() }
}

/// Which file it is, whatever its name; `None` if it has one name only, or where the system doesn't tell.
pub fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

/// Bytes that a file takes on the disk; `None` where the system doesn't tell.
pub fn allocated(metadata: &Metadata) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // stat(2): in units of 512 bytes, whatever the file system's own.
        Some(metadata.blocks().saturating_mul(512))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

/// Bytes that an unprivileged process may still write to the file system of `path`; `None` where it isn't known.
///
/// # Errors
/// What the system says.
pub fn free_space(path: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(None)
    }
}

/// Raises the number of files that the process may have open to the most it may ask for, and gives that; a server
/// with many clients needs one a connection and one a file.
///
/// # Errors
/// What the system says.
pub fn raise_file_limit() -> io::Result<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // macOS refuses more than this although it says that there is no limit.
        let most = limit.maximum.map_or(10_240, |maximum| maximum.min(1 << 20));
        if limit.current.is_some_and(|current| current < most) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
        }
        Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }
    #[cfg(not(unix))]
    Ok(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same promises, whichever the system.
    macro_rules! suite {
        ($module:ident) => {
            mod $module {
                use std::io::Write;

                use super::super::$module::{give_back, open_cached, read_cached, rename_new, reserve};
                use super::*;

                #[test]
                fn a_file_is_opened_and_read_or_left_to_a_blocking_thread() {
                    let dir = tempfile::tempdir().unwrap();
                    let path = dir.path().join("a");
                    std::fs::OpenOptions::new()
                        .write(true)
                        .create(true)
                        .truncate(true)
                        .open(&path)
                        .unwrap()
                        .write_all(b"hello")
                        .unwrap();
                    let root = open_directory(dir.path()).unwrap();
                    if let Some(file) = open_cached(&root, "a").unwrap() {
                        let mut buffer = [0; 8];
                        assert!(matches!(read_cached(&file, &mut buffer, 1).unwrap(), None | Some(4)));
                        assert!(matches!(read_cached(&file, &mut buffer, 5).unwrap(), None | Some(0)));
                    }
                    let missing = open_cached(&root, "b");
                    assert!(
                        matches!(&missing, Ok(None))
                            || missing.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
                    );
                }

                #[test]
                fn nothing_outside_the_directory_is_opened() {
                    let dir = tempfile::tempdir().unwrap();
                    let root = open_directory(dir.path()).unwrap();
                    for name in ["../a", "..", "/etc/passwd"] {
                        assert!(!matches!(open_cached(&root, name), Ok(Some(_))), "{name}");
                    }
                }

                #[test]
                fn a_new_name_is_never_taken_from_another() {
                    let dir = tempfile::tempdir().unwrap();
                    let path = |name: &str| dir.path().join(name);
                    for name in ["a", "b"] {
                        std::fs::OpenOptions::new()
                            .write(true)
                            .create(true)
                            .truncate(true)
                            .open(path(name))
                            .unwrap()
                            .write_all(name.as_bytes())
                            .unwrap();
                    }
                    let error = rename_new(&path("a"), &path("b")).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
                    assert_eq!(std::fs::read(path("b")).unwrap(), b"b");
                    rename_new(&path("a"), &path("c")).unwrap();
                    assert_eq!(std::fs::read(path("c")).unwrap(), b"a");
                    assert!(!path("a").exists());
                }

                #[test]
                fn reserving_does_not_change_a_files_length() {
                    let file = tempfile::tempfile().unwrap();
                    reserve(&file, 0, 1 << 20).unwrap();
                    assert_eq!(file.metadata().unwrap().len(), 0);
                    give_back(&file, 0, 1 << 20).unwrap();
                    assert_eq!(file.metadata().unwrap().len(), 0);
                }

                #[test]
                fn giving_back_changes_nothing_around_it() {
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(&[7; 100_000]).unwrap();
                    give_back(&file, 10_000, 50_000).unwrap();
                    give_back(&file, 90_000, 0).unwrap();
                    assert_eq!(file.metadata().unwrap().len(), 100_000);
                    let mut bytes = vec![0; 100_000];
                    read_at(&file, &mut bytes, 0).unwrap();
                    assert!(bytes[..10_000].iter().chain(&bytes[60_000..]).all(|byte| *byte == 7));
                    assert!(bytes[10_000..60_000].iter().all(|byte| [0, 7].contains(byte)));
                }
            }
        };
    }

    #[cfg(target_os = "linux")]
    suite!(linux);
    suite!(portable);

    #[test]
    fn there_is_free_space_here() {
        assert!(free_space(Path::new("/")).unwrap().is_none_or(|bytes| bytes > 0));
    }
}
