//! Which files are sent, and what each is called on the server.
//!
//! A name on the server is one component. A file that was named is sent under its own name; one that was found in a directory
//! under its path below that directory, with `_` between the components: `a/b.txt` in `DIR` becomes `a_b.txt`. What
//! the server would clean from a name is cleaned here. Two files that would get one name are an error before anything
//! is sent: neither may silently replace the other.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::domain::FileName;

/// A file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) name: FileName,
    /// When it was found.
    pub(super) size: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their paths.
    pub(super) items: Vec<Item>,
    /// What can't be sent, and why.
    pub(super) failed: Vec<(PathBuf, Failure)>,
    /// Links, pipes, devices and the like in directories.
    pub(super) skipped: Vec<PathBuf>,
}

/// Finds every regular file that the paths name or hold. Links are followed only where the user named them: one in a
/// directory may lead anywhere, or round in a circle. Blocks.
///
/// # Errors
/// If two files would have one name.
pub(super) fn find(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => found.walk(path),
            Ok(metadata) if metadata.is_file() => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                found.add(path.clone(), &name.unwrap_or_default(), &metadata);
            }
            Ok(_) => {
                let message = format!("{} is no regular file", path.display());
                found.failed.push((path.clone(), Failure::new("not_a_file", message)));
            }
            Err(error) => found.cannot_read(path.clone(), &error),
        }
    }
    found.refuse_collisions()?;
    Ok(found)
}

impl Found {
    /// Takes in what a directory holds, in the order of the names, so that every run does the same.
    fn walk(&mut self, top: &Path) {
        let mut directories = vec![top.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = std::fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.cannot_read(directory, &error);
                    continue;
                }
            };
            entries.sort_by_key(std::fs::DirEntry::file_name);
            let mut below = Vec::new();
            for entry in entries {
                let path = entry.path();
                // Not of what a link leads to.
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => below.push(path),
                    Ok(metadata) if metadata.is_file() => {
                        let name = flat(path.strip_prefix(top).unwrap_or(&path));
                        self.add(path, &name, &metadata);
                    }
                    Ok(_) => self.skipped.push(path),
                    Err(error) => self.cannot_read(path, &error),
                }
            }
            directories.extend(below.into_iter().rev());
        }
    }

    fn add(&mut self, path: PathBuf, name: &str, metadata: &Metadata) {
        match FileName::clean(name) {
            Ok(name) => self.items.push(Item { path, name, size: metadata.len() }),
            Err(error) => {
                let message = format!("{name:?} cannot be a name on the server: {error}");
                self.failed.push((path, Failure::new("invalid_filename", message)));
            }
        }
    }

    fn cannot_read(&mut self, path: PathBuf, error: &io::Error) {
        let message = format!("cannot read {}: {error}", path.display());
        self.failed.push((path, Failure::new("cannot_read", message)));
    }

    fn refuse_collisions(&self) -> Result<(), Failure> {
        let mut taken: HashMap<&str, &Path> = HashMap::with_capacity(self.items.len());
        for item in &self.items {
            if let Some(other) = taken.insert(item.name.as_str(), &item.path) {
                let (first, second) = (other.display(), item.path.display());
                let message = format!("{first} and {second} would both be {} on the server", item.name);
                return Err(Failure::new("name_collision", message)
                    .with_hint("nothing has been sent; send one of them by itself, with --filename"));
            }
        }
        Ok(())
    }
}

/// A relative path as one component.
fn flat(relative: &Path) -> String {
    let components: Vec<_> =
        relative.components().map(|component| component.as_os_str().to_string_lossy()).collect();
    components.join("_")
}

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, create_dir_all};

    use tempfile::TempDir;

    use super::*;

    fn tree(files: &[&str]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        }
        directory
    }

    fn names(found: &Found) -> Vec<&str> {
        found.items.iter().map(|item| item.name.as_str()).collect()
    }

    #[test]
    fn paths_below_a_directory_become_names() {
        let tree = tree(&["b.txt", "a.txt", "sub/a.txt", "sub/deep/er/c d.txt", ".hidden", "sub.txt"]);
        let found = find(&[tree.path().to_owned()]).unwrap();
        let expected = ["hidden", "a.txt", "b.txt", "sub.txt", "sub_a.txt", "sub_deep_er_c d.txt"];
        assert_eq!(names(&found), expected);
        assert!(found.failed.is_empty() && found.skipped.is_empty());
        // A file that was named has its own name, wherever it is.
        let found = find(&[tree.path().join("sub/a.txt"), tree.path().join("sub/deep")]).unwrap();
        assert_eq!(names(&found), ["a.txt", "er_c d.txt"]);
    }

    #[test]
    fn two_files_with_one_name_are_refused() {
        for files in [["a_b", "a/b"], ["a/b/c", "a_b/c"], [".x", "x"], ["a:b", "ab"]] {
            let tree = tree(&files);
            let failure = find(&[tree.path().to_owned()]).unwrap_err();
            assert!(failure.to_string().contains("would both be"), "{failure}");
        }
        let (one, other) = (tree(&["a"]), tree(&["a"]));
        assert!(find(&[one.path().to_owned(), other.path().to_owned()]).is_err());
        let named = one.path().join("a");
        assert!(find(&[named.clone(), named]).is_err(), "twice the same");
    }

    #[test]
    fn what_cannot_be_sent_stops_nothing() {
        let tree = tree(&["a", "...", "b/c"]);
        let found = find(&[tree.path().join("absent"), tree.path().to_owned()]).unwrap();
        assert_eq!(names(&found), ["a", "b_c"]);
        assert_eq!(found.failed.len(), 2);
        assert_eq!(found.failed[1].0, tree.path().join("..."));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_only_where_they_are_named() {
        use std::os::unix::fs::symlink;
        let tree = tree(&["d/a"]);
        let at = |name: &str| tree.path().join(name);
        symlink(at("d"), at("d/round")).unwrap();
        symlink("/etc/passwd", at("d/out")).unwrap();
        symlink(at("d"), at("link")).unwrap();
        let found = find(&[at("link")]).unwrap();
        assert_eq!(names(&found), ["a"]);
        assert_eq!(found.skipped, [at("link/out"), at("link/round")]);
    }
}
