//! What every system has: all is left to blocking threads.

use std::fs::File;
use std::io;
use std::path::Path;

/// Always `None`: open it on a blocking thread.
///
/// # Errors
/// None.
pub fn open_cached(_directory: &File, _name: &str) -> io::Result<Option<File>> {
    Ok(None)
}

/// Always `None`: read it on a blocking thread.
///
/// # Errors
/// None.
pub fn read_cached(_file: &File, _buffer: &mut [u8], _offset: u64) -> io::Result<Option<usize>> {
    Ok(None)
}

/// Does nothing: a full disk shows when it is written to.
///
/// # Errors
/// None.
pub fn reserve(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    Ok(())
}

/// Does nothing.
///
/// # Errors
/// None.
pub fn give_back(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    Ok(())
}

/// Renames unless the new name is taken: by a second link, which fails where a name exists.
///
/// # Errors
/// `AlreadyExists`; what else the system says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}
