//! The keys of a server: one to seal with, and older ones that still open what they sealed.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::bytes::{FileNonce, KeyId};

/// The fewest bytes an `ENCRYPTION_KEY` may have: those of the AES-128 keys that come of it.
pub const MIN_KEY_LEN: usize = 16;

/// Key of one container or of the older format.
pub(super) type FileKeyBytes = Zeroizing<[u8; 16]>;

/// HKDF `info` of a container's key. Changes with the version of the container.
const FILE_KEY_INFO: &[u8] = b"smart-file-transfer container v1 file key";
/// HKDF `info` of a key id: unlike the other, so that an id is independent of every file key.
const KEY_ID_INFO: &[u8] = b"smart-file-transfer key id v1";

/// Why a keyring could not be made. Says nothing about the key but its length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// `ENCRYPTION_KEY` is too short.
    #[error("ENCRYPTION_KEY has {len} bytes; at least {MIN_KEY_LEN} are needed")]
    TooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// An entry of `ENCRYPTION_KEY_OLD` is too short.
    #[error("entry {number} of ENCRYPTION_KEY_OLD has {len} bytes; at least {MIN_KEY_LEN} are needed")]
    OldTooShort {
        /// Which entry, counted from 1.
        number: usize,
        /// Its length in bytes.
        len: usize,
    },
}

/// The present `ENCRYPTION_KEY` and the old ones.
///
/// Seals with the present one; opens with whichever a header names by its [`KeyId`]. Not `Clone`: share it in an
/// `Arc`. Keys are overwritten on drop and not shown by `Debug`, which prints ids alone.
///
/// A key is used as given, as bytes: HKDF spreads what randomness it has, but adds none and does not slow guessing. It
/// should be random (32 bytes or more from the system), not a phrase.
pub struct Keyring {
    current: MasterKey,
    old: Vec<MasterKey>,
}

struct MasterKey {
    id: KeyId,
    secret: Zeroizing<Vec<u8>>,
}

impl Keyring {
    /// Takes `ENCRYPTION_KEY` and the entries of `ENCRYPTION_KEY_OLD`, in any order, as given.
    ///
    /// # Errors
    /// [`KeyringError`] where a key has fewer than [`MIN_KEY_LEN`] bytes.
    pub fn new<K: AsRef<[u8]>>(
        current: impl AsRef<[u8]>,
        old: impl IntoIterator<Item = K>,
    ) -> Result<Self, KeyringError> {
        let current = current.as_ref();
        if current.len() < MIN_KEY_LEN {
            return Err(KeyringError::TooShort { len: current.len() });
        }
        let mut ring = Self { current: MasterKey::new(current), old: Vec::new() };
        for (index, key) in old.into_iter().enumerate() {
            let key = key.as_ref();
            if key.len() < MIN_KEY_LEN {
                return Err(KeyringError::OldTooShort { number: index + 1, len: key.len() });
            }
            let key = MasterKey::new(key);
            if ring.find(key.id).is_none() {
                ring.old.push(key);
            }
        }
        Ok(ring)
    }

    /// Id of the key that seals: a container with another id is due for re-keying.
    pub fn current_id(&self) -> KeyId {
        self.current.id
    }

    /// Whether a container sealed under this id can be opened.
    pub fn contains(&self, id: KeyId) -> bool {
        self.find(id).is_some()
    }

    /// Key of the container with this nonce: HKDF-SHA256 (RFC 5869) with the file nonce as salt.
    ///
    /// `None` where no key has this id.
    pub(super) fn file_key(&self, id: KeyId, nonce: &FileNonce) -> Option<FileKeyBytes> {
        let mut key = FileKeyBytes::default();
        derive(self.find(id)?, Some(nonce.as_bytes()), FILE_KEY_INFO, &mut *key);
        Some(key)
    }

    /// Keys of the older format, the present one first: the first 16 bytes of each `ENCRYPTION_KEY`.
    pub(super) fn single_message_keys(&self) -> impl Iterator<Item = FileKeyBytes> {
        std::iter::once(&self.current).chain(&self.old).filter_map(|key| {
            let mut bytes = FileKeyBytes::default();
            bytes.copy_from_slice(key.secret.get(..MIN_KEY_LEN)?);
            Some(bytes)
        })
    }

    fn find(&self, id: KeyId) -> Option<&[u8]> {
        std::iter::once(&self.current).chain(&self.old).find(|key| key.id == id).map(|key| &key.secret[..])
    }
}

impl MasterKey {
    fn new(secret: &[u8]) -> Self {
        let mut id = [0; KeyId::LEN];
        derive(secret, None, KEY_ID_INFO, &mut id);
        Self { id: KeyId::from_bytes(id), secret: Zeroizing::new(secret.to_vec()) }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let old: Vec<KeyId> = self.old.iter().map(|key| key.id).collect();
        f.debug_struct("Keyring")
            .field("current", &self.current.id)
            .field("old", &old)
            .finish_non_exhaustive()
    }
}

fn derive(secret: &[u8], salt: Option<&[u8; FileNonce::LEN]>, info: &[u8], out: &mut [u8]) {
    let hkdf = Hkdf::<Sha256>::new(salt.map(|salt| &salt[..]), secret);
    // RFC 5869, section 2.3: expansion fails above 255 hashes of output; ours are 8 and 16 bytes.
    #[allow(clippy::expect_used)]
    hkdf.expand(info, out).expect("8 and 16 bytes are lengths that HKDF gives");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_too_short_are_refused_and_not_shown() {
        assert_eq!(Keyring::new("fifteen bytes..", [""; 0]).err(), Some(KeyringError::TooShort { len: 15 }));
        let error = Keyring::new("DevKey1234567890", ["a good old key, long", "short"]).unwrap_err();
        assert_eq!(error, KeyringError::OldTooShort { number: 2, len: 5 });
        assert!(!error.to_string().contains("short,"));
        assert!(Keyring::new("DevKey1234567890", [""; 0]).is_ok());
    }

    #[test]
    fn debug_shows_ids_alone() {
        let ring = Keyring::new("DevKey1234567890", ["another old key 1"]).unwrap();
        let shown = format!("{ring:?}");
        assert!(shown.contains(&ring.current_id().to_string()));
        assert!(!shown.contains("DevKey") && !shown.contains("another"), "{shown}");
        let as_list = format!("{:?}", b"DevKey");
        assert!(!shown.contains(as_list.trim_matches(['[', ']'])), "{shown}");
    }

    #[test]
    fn an_old_key_is_found_by_its_id_and_the_present_one_seals() {
        let before = Keyring::new("the key of last year", [""; 0]).unwrap();
        let now =
            Keyring::new("the key of this year", ["the key of last year", "the key of this year"]).unwrap();
        assert_ne!(now.current_id(), before.current_id());
        assert!(now.contains(before.current_id()));
        assert!(!before.contains(now.current_id()));
        let nonce = FileNonce::from_bytes([7; 16]);
        let key = |ring: &Keyring, id| ring.file_key(id, &nonce).map(|key| *key);
        assert_eq!(key(&now, before.current_id()), key(&before, before.current_id()));
        assert_eq!(key(&before, now.current_id()), None);
        assert_eq!(now.single_message_keys().count(), 2);
    }

    #[test]
    fn keys_that_begin_alike_or_end_in_zeros_differ() {
        // HMAC pads a key with zeros: two keys that differ only there would be one. Keys are HKDF's input, not its salt.
        let id = |key: &str| Keyring::new(key, [""; 0]).unwrap().current_id();
        assert_ne!(id("0123456789abcdef"), id("0123456789abcdef\0"));
        assert_ne!(id("0123456789abcdef"), id("0123456789abcdefg"));
    }
}
