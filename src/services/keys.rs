//! The keys that seal and open files: those that are set, or one that is made when it is first needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use zeroize::Zeroizing;

use super::pipeline::blocking;
use crate::crypto::{FileKey, Geometry, Keyring, KeyringError, MIN_KEY_LEN};
use crate::store::{Durability, atomic};

/// Gives out the keyring.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Set as soon as there is a key.
    keyring: OnceLock<Arc<Keyring>>,
    /// Held while one is made: two must not be.
    making: Mutex<()>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// One that is set can't be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The file of the key can't be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Keys {
    /// Takes `ENCRYPTION_KEY`, if it is set, those of `ENCRYPTION_KEY_OLD`, and the one at `path` that was made because
    /// none was set: it stays good for what it has sealed. Blocking.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(path: PathBuf, current: Option<&str>, old: &[Zeroizing<String>]) -> Result<Self, KeysError> {
        let made = Self::made(&path)?;
        let made = made.as_ref().map(|key| key.as_str());
        let keyring = OnceLock::new();
        if let Some(current) = current.or(made) {
            let old = old.iter().map(|key| key.as_str()).chain(made);
            _ = keyring.set(Arc::new(Keyring::new(current, old)?));
        }
        Ok(Self(Arc::new(Inner { path, keyring, making: Mutex::new(()) })))
    }

    /// The key at `path` that was made because none was set, if there is one. Blocking.
    ///
    /// # Errors
    /// [`KeysError::File`].
    pub fn made(path: &Path) -> Result<Option<Zeroizing<String>>, KeysError> {
        match std::fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) if text.trim().len() >= MIN_KEY_LEN => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
            Ok(_) => {
                let source = io::Error::new(
                    io::ErrorKind::InvalidData,
                    "is too short for a key: restore it from its backup",
                );
                Err(KeysError::File { path: path.to_owned(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeysError::File { path: path.to_owned(), source }),
        }
    }

    /// The keys there are; `None`: nothing has been sealed yet.
    pub fn get(&self) -> Option<Arc<Keyring>> {
        self.0.keyring.get().cloned()
    }

    /// The key of a new container. Makes `ENCRYPTION_KEY` first, if there is none. Cancel-safe.
    ///
    /// # Errors
    /// The key can't be kept; no random bytes.
    pub async fn file_key(&self) -> io::Result<Arc<FileKey>> {
        let keyring = match self.get() {
            Some(keyring) => keyring,
            None => {
                let keys = self.clone();
                blocking(move || keys.make().map_err(io::Error::other)).await?
            }
        };
        new_file_key(&keyring)
    }

    /// The keyring, with a key that is made now if there is none. Blocking.
    ///
    /// # Errors
    /// [`KeysError::File`].
    pub fn make(&self) -> Result<Arc<Keyring>, KeysError> {
        let _making = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyring) = self.get() {
            return Ok(keyring);
        }
        let path = &self.0.path;
        let failed = |source| KeysError::File { path: path.clone(), source };
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|error| failed(error.into()))?;
        let text: Zeroizing<String> =
            Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        atomic::create_secret(path, text.as_bytes(), Durability::Power).map_err(failed)?;
        tracing::warn!(
            path = %path.display(),
            "ENCRYPTION_KEY is not set: a random key was made. Back this file up, apart from the storage: without it, what is sealed is lost"
        );
        let keyring = Arc::new(Keyring::new(&*text, [""; 0])?);
        Ok(Arc::clone(self.0.keyring.get_or_init(|| keyring)))
    }
}

/// The key of a new container.
///
/// # Errors
/// No random bytes.
pub fn new_file_key(keyring: &Keyring) -> io::Result<Arc<FileKey>> {
    FileKey::create(keyring, Geometry::default()).map(Arc::new).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_for_its_owner_alone_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let keys = Keys::load(path.clone(), None, &[]).unwrap();
        assert!(keys.get().is_none());
        let id = keys.make().unwrap().current_id();
        assert_eq!(keys.make().unwrap().current_id(), id);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(Keys::load(path.clone(), None, &[]).unwrap().get().unwrap().current_id(), id);
        let later = Keys::load(path, Some("a key that was set later"), &[]).unwrap().get().unwrap();
        assert!(later.current_id() != id && later.contains(id));
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Keys::load(dir.path().join("secret.key"), Some("too short"), &[]);
        assert!(matches!(refused, Err(KeysError::Keyring(KeyringError::TooShort { len: 9 }))));
    }
}
