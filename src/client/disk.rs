//! What the client wants of this machine's file system and the standard library does not have.

use std::fs::File;
use std::io;
use std::path::Path;

/// Reserves room for `size` bytes from `offset` on, without changing the length of the file, so that a disk that is too
/// small is known before the download and not after hours. Where the file system cannot do that, nothing happens.
///
/// # Errors
/// Only those that mean that there is no room.
#[cfg(target_os = "linux")]
pub(super) fn reserve(file: &File, offset: u64, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, size)
        .map_err(io::Error::from)
    {
        Err(error) if is_no_room(&error) => Err(error),
        _ => Ok(()),
    }
}

/// See the one for Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn reserve(_file: &File, _offset: u64, _size: u64) -> io::Result<()> {
    Ok(())
}

/// Reads at a position, and leaves the file's own where it is: several parts of one open file are read at once.
#[cfg(unix)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

/// Here the position moves with the read: nobody uses it.
#[cfg(windows)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

/// Whether an error says that the disk, or what this user may have of it, is full.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Makes a rename in this directory survive a power cut.
#[cfg(unix)]
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere directories cannot be opened; the file system sees to it.
#[cfg(not(unix))]
pub(super) fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether `path` still leads to the open `file`.
#[cfg(unix)]
pub(super) fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (open, named) = (file.metadata()?, std::fs::symlink_metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// Elsewhere an open file cannot be renamed by another process.
#[cfg(not(unix))]
pub(super) fn is_still_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}
