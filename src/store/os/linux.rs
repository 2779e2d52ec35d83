//! Linux: reading and opening what is in memory without ever waiting for a disk, reserving space, renaming without
//! replacing. Where a kernel or file system lacks one of them, it answers as the portable fallback does.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::path::Path;

use rustix::fs::{
    CWD, FallocateFlags, Mode, OFlags, RenameFlags, ResolveFlags, fallocate, openat2, renameat_with,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Opens `name` in `directory` for reading if that can be done from memory (`openat2(2)` with `RESOLVE_CACHED`);
/// `None`: open it on a blocking thread. Follows no link and reaches nothing outside the directory: what is there
/// is taken for absent.
///
/// # Errors
/// What the system says, `NotFound` among it.
pub fn open_cached(directory: &File, name: &str) -> io::Result<Option<File>> {
    // NONBLOCK: opening a FIFO that somebody put there must not hang.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::AGAIN | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::OPNOTSUPP) => Ok(None),
        // A link, a socket: no regular file.
        Err(Errno::LOOP | Errno::NXIO | Errno::XDEV) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// Reads at `offset` what is in the page cache (`preadv2(2)` with `RWF_NOWAIT`), maybe less than asked for; 0 at the
/// end of the file; `None`: read it on a blocking thread.
///
/// # Errors
/// What the system says.
pub fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    loop {
        return match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

/// Sets space aside (`fallocate(2)`) for `length` bytes at `offset`, so that a write there can't find the disk full.
/// The file's length stays. Where the file system can't, nothing happens.
///
/// # Errors
/// `StorageFull` if there is not so much; what else the system says.
pub fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    loop {
        return match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Gives space back (`fallocate(2)`, a hole) for `length` bytes at `offset`. Where the file system can't, nothing happens.
///
/// # Errors
/// What the system says.
pub fn give_back(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Renames unless the new name is taken (`renameat2(2)` with `RENAME_NOREPLACE`): one atomic step.
///
/// # Errors
/// `AlreadyExists`; what else the system says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        result => Ok(result?),
    }
}
