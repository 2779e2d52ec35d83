//! What an upload must remember to go on, as its log has it.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use zeroize::Zeroizing;

use crate::crypto::{Keyring, OpenError, open_to_vec, seal_to_vec};
use crate::store::upload_log::Memory;

/// The first byte: that the state of the hash is as sha2 0.11 writes it. Another version may write it otherwise.
const SHA2_0_11: u8 = 11;

/// Writes the state of a hash and plain bytes down; with a keyring, sealed.
pub(super) fn write(hash: &Sha256, plain: &[u8], keyring: Option<&Keyring>) -> io::Result<Memory> {
    let state = Zeroizing::new(hash.serialize());
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + state.len() + plain.len()));
    bytes.push(SHA2_0_11);
    bytes.extend_from_slice(&state);
    bytes.extend_from_slice(plain);
    Ok(match keyring {
        None => Memory::Plain(STANDARD.encode(&*bytes).into()),
        Some(keyring) => {
            let sealed = seal_to_vec(keyring, &bytes).map_err(io::Error::other)?;
            Memory::Sealed(STANDARD.encode(sealed).into())
        }
    })
}

/// Reads them.
///
/// # Errors
/// `InvalidData`: it is not what was written; `NotFound`: there is no key to open it with.
pub(super) fn read(memory: &Memory, keyring: Option<&Keyring>) -> io::Result<(Sha256, Zeroizing<Vec<u8>>)> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidData, "what the upload had to remember can't be read");
    let bytes = Zeroizing::new(match memory {
        Memory::Plain(text) => STANDARD.decode(&**text).map_err(|_| invalid())?,
        Memory::Sealed(text) => {
            let keyring = keyring.ok_or(io::ErrorKind::NotFound)?;
            let container = STANDARD.decode(&**text).map_err(|_| invalid())?;
            open_to_vec(keyring, &container).map_err(|error| match error {
                OpenError::UnknownKey(_) => io::ErrorKind::NotFound.into(),
                error => io::Error::new(io::ErrorKind::InvalidData, error),
            })?
        }
    });
    let (version, bytes) = bytes.split_first().ok_or_else(invalid)?;
    let length = size_of::<SerializedState<Sha256>>();
    let state = bytes.get(..length).and_then(|state| state.try_into().ok());
    let hash = state.and_then(|state: &SerializedState<Sha256>| Sha256::deserialize(state).ok());
    match (*version, hash) {
        (SHA2_0_11, Some(hash)) => Ok((hash, Zeroizing::new(bytes[length..].to_vec()))),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn a_hash_goes_on_from_what_was_written() {
        let keyring = Keyring::new("a key for this test", [""; 0]).unwrap();
        let other = Keyring::new("another key for it", [""; 0]).unwrap();
        for length in [0, 1, 63, 64, 65, 100_000] {
            let (head, tail) = (vec![7; length], b"the rest");
            let hash = Sha256::new_with_prefix(&head);
            for keyring in [None, Some(&keyring)] {
                let memory = write(&hash, b"tail", keyring).unwrap();
                let (mut read, plain) = self::read(&memory, keyring).unwrap();
                read.update(tail);
                assert_eq!(read.finalize(), Sha256::new_with_prefix(&head).chain_update(tail).finalize());
                assert_eq!(&**plain, b"tail");
            }
        }
        let sealed = write(&Sha256::new(), b"secret", Some(&keyring)).unwrap();
        assert_eq!(read(&sealed, None).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&sealed, Some(&other)).unwrap_err().kind(), io::ErrorKind::NotFound);
        let Memory::Sealed(text) = sealed else { panic!("not sealed") };
        assert!(!STANDARD.decode(&*text).unwrap().windows(6).any(|bytes| bytes == b"secret"));
        for bad in ["", "AA==", "CwAA"] {
            assert!(read(&Memory::Plain(bad.into()), None).is_err(), "{bad}");
        }
    }
}
