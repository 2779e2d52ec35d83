//! Content that must not be readable on the disk.

use std::path::{Path, PathBuf};

use super::content;

/// Every file below a directory that holds these bytes.
pub fn holding(directory: &Path, marker: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, marker));
        } else if std::fs::read(&path).unwrap().windows(marker.len()).any(|window| window == marker) {
            found.push(path);
        }
    }
    found
}

/// Content with a marker in it every 4 KiB.
pub fn marked(length: usize) -> (Vec<u8>, &'static [u8]) {
    const MARKER: &[u8] = b"nobody may read this sentence";
    let mut bytes = content(length, 9);
    bytes.chunks_exact_mut(4096).for_each(|chunk| chunk[..MARKER.len()].copy_from_slice(MARKER));
    (bytes, MARKER)
}
