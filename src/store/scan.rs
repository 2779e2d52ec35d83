//! What stands in a directory of files.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::os;
use crate::domain::{FileName, StoredFile};

/// How what stands in a directory is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// In a container.
    Sealed,
}

/// What stands in the storage directory.
#[derive(Debug, Default)]
pub struct Scan {
    /// The regular files under names that can be asked for.
    pub files: HashMap<FileName, StoredFile>,
    /// Those of them that have another name too, by what they are.
    pub linked: HashMap<(u64, u64), (FileName, Form)>,
}

/// Looks into a directory of files.
///
/// # Errors
/// What the system says.
pub fn scan(root: &Path, form: Form) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let raw = entry.file_name();
        let name = raw.to_str().and_then(|raw| FileName::clean(raw).ok());
        let Some(name) = name.filter(|name| name.as_str() == raw) else { continue };
        let metadata = match entry.metadata() {
            // Somebody is tidying up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_file() {
            if let Some(identity) = os::identity(&metadata) {
                scan.linked.insert(identity, (name.clone(), form));
            }
            scan.files
                .insert(name, StoredFile { size: metadata.len(), modified: metadata.modified()?.into() });
        }
    }
    Ok(scan)
}
