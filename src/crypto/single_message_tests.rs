use std::io::Cursor;

use aes::Aes128;
use eax::Eax;
use eax::aead::{AeadInOut, KeyInit as _};
use sha2::{Digest, Sha256};

use super::*;
use crate::crypto::test_support::{keyring, plaintext, read_to_end};

/// What the older server wrote.
fn seal(key: &[u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let nonce = [0xC7; 16];
    let mut data = plaintext.to_vec();
    let eax = Eax::<Aes128>::new(key.into());
    let tag = eax.encrypt_inout_detached(&nonce.into(), b"", data.as_mut_slice().into()).unwrap();
    [&nonce, &<[u8; 16]>::from(tag), &data[..]].concat()
}

fn open(file: &[u8], keyring: &Keyring) -> Result<Vec<u8>, SingleMessageError> {
    let message = SingleMessage::verify(Cursor::new(file), keyring)?;
    let len = message.plaintext_len();
    let plaintext = read_to_end(message)?;
    assert_eq!(plaintext.len() as u64, len);
    Ok(plaintext)
}

/// The content that the fixture's README gives for a name and length.
fn fixture_content(name: &str, len: usize) -> Vec<u8> {
    let mut content = Vec::new();
    for block in 0.. {
        if content.len() >= len {
            break;
        }
        content.extend_from_slice(&Sha256::digest(format!("{name}:{block}")));
    }
    content.truncate(len);
    content
}

macro_rules! fixture {
    ($name:literal) => {
        &include_bytes!(concat!("../../tests/fixtures/older-deployment/storage/encrypted/", $name))[..]
    };
}

#[test]
fn the_files_of_an_older_deployment_open() {
    for (name, file, len) in [
        ("secret-empty.bin", fixture!("secret-empty.bin"), 0),
        ("secret-1.bin", fixture!("secret-1.bin"), 1),
        ("secret-15.bin", fixture!("secret-15.bin"), 15),
        ("secret-16.bin", fixture!("secret-16.bin"), 16),
        ("secret-17.bin", fixture!("secret-17.bin"), 17),
        ("secret-70000.bin", fixture!("secret-70000.bin"), 70_000),
        ("secret-300000.bin", fixture!("secret-300000.bin"), 300_000),
    ] {
        assert!(open(file, &keyring()).unwrap() == fixture_content(name, len), "{name}");
    }
}

#[test]
fn the_tampered_file_of_an_older_deployment_is_refused() {
    let refused = open(fixture!("secret-tampered.bin"), &keyring());
    assert!(matches!(refused, Err(SingleMessageError::Tampered)));
}

#[test]
fn edges_of_blocks_and_pieces_open() {
    for len in [0, 1, 15, 16, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
        let file = seal(b"DevKey1234567890", &plaintext(len));
        assert!(open(&file, &keyring()).unwrap() == plaintext(len), "{len}");
    }
}

#[test]
fn every_single_flipped_bit() {
    let file = seal(b"DevKey1234567890", &plaintext(50));
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(open(&flipped, &keyring()), Err(SingleMessageError::Tampered)), "bit {bit}");
    }
}

#[test]
fn truncated_and_extended() {
    let file = seal(b"DevKey1234567890", &plaintext(50));
    for len in 0..file.len() {
        match open(&file[..len], &keyring()) {
            Err(SingleMessageError::TooShort(told)) => assert!(len < PREFIX_LEN && told == len as u64),
            Err(SingleMessageError::Tampered) => assert!(len >= PREFIX_LEN),
            other => panic!("{len}: {other:?}"),
        }
    }
    assert!(matches!(open(&[&file[..], &[0]].concat(), &keyring()), Err(SingleMessageError::Tampered)));
}

#[test]
fn only_the_first_sixteen_bytes_of_a_key_count_and_old_keys_are_tried() {
    let file = seal(b"the key of old, ", &plaintext(40));
    let open_with = |current: &str, old: &[&str]| open(&file, &Keyring::new(current, old).unwrap());
    assert_eq!(open_with("the key of old, and more of it", &[]).unwrap(), plaintext(40));
    assert_eq!(
        open_with("DevKey1234567890", &["yet another key.", "the key of old, x"]).unwrap(),
        plaintext(40)
    );
    assert!(matches!(open_with("DevKey1234567890", &[]), Err(SingleMessageError::Tampered)));
}

#[test]
fn a_container_under_an_old_name() {
    let container = crate::crypto::seal_to_vec(&keyring(), &plaintext(100)).unwrap();
    assert!(matches!(open(&container, &keyring()), Err(SingleMessageError::Tampered)));
}

/// A file that is replaced by another one once it has been read to its end.
struct Replaced {
    now: Cursor<Vec<u8>>,
    then: Option<Vec<u8>>,
}

impl Read for Replaced {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.now.read(out)
    }
}

impl Seek for Replaced {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // The reader seeks here to start its second pass.
        if to == SeekFrom::Start(PREFIX_LEN as u64)
            && let Some(then) = self.then.take()
        {
            self.now = Cursor::new(then);
        }
        self.now.seek(to)
    }
}

#[test]
fn a_file_that_changes_after_it_was_verified_is_not_taken_for_whole() {
    let file = seal(b"DevKey1234567890", &plaintext(1000));
    let mut flipped = file.clone();
    flipped[500] ^= 1;
    for then in [flipped, file[..900].to_vec()] {
        let changing = Replaced { now: Cursor::new(file.clone()), then: Some(then) };
        let message = SingleMessage::verify(changing, &keyring()).unwrap();
        assert!(read_to_end(message).is_err());
    }
}
