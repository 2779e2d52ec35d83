//! Sealing gives the committed vectors, byte for byte. `tests/crypto_vectors.rs` opens them.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::crypto::test_support::keyring;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seals as the vectors were: the salt of segment n is `5a17` and n in six bytes.
fn seal(key: &FileKey, plaintext: &[u8]) -> Vec<u8> {
    let layout = Layout::of_plaintext(key.header().geometry, plaintext.len() as u64).unwrap();
    let mut container = key.header_bytes().to_vec();
    for number in 0..layout.segments() {
        let place = layout.segment(number).unwrap();
        let part = &plaintext[place.start as usize..][..place.len];
        let mut segment = [&[0; SALT_LEN], part, &[0; TAG_LEN]].concat();
        let ends = if place.last { Ends::File } else { Ends::Chunk };
        let salt = (0x5A17 << 48 | number).to_be_bytes();
        // A short segment at the end of a chunk is whole; one at the end of the file need not be.
        key.seal_with_salt(number, ends, &mut segment, salt).unwrap();
        container.extend_from_slice(&segment);
    }
    container
}

#[test]
fn sealing_gives_the_vectors() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../tests/vectors/container/vectors.json")).unwrap();
    let keyring_of_vectors = keyring();
    assert_eq!(vectors["encryption_key"], "DevKey1234567890");
    assert_eq!(vectors["key_id"], keyring_of_vectors.current_id().to_string());
    let file_nonce = FileNonce::from_bytes(std::array::from_fn(|i| 0xA0 + i as u8));
    assert_eq!(vectors["file_nonce"], file_nonce.to_string());
    let file_key = keyring_of_vectors.file_key(keyring_of_vectors.current_id(), &file_nonce).unwrap();
    assert_eq!(vectors["file_key"], hex(&*file_key));

    let opens = vectors["opens"].as_array().unwrap();
    assert_eq!(opens.len(), 11);
    for vector in opens {
        let number = |name: &str| vector[name].as_u64().unwrap();
        let geometry = Geometry::new(number("segment_size") as u32, number("chunk_size")).unwrap();
        let header = Header { key_id: keyring_of_vectors.current_id(), file_nonce, geometry };
        let key = FileKey::for_header(header, &keyring_of_vectors).unwrap();
        let plaintext: Vec<u8> = (0..number("plaintext_len")).map(|i| (i * 7 + i / 256) as u8).collect();
        let container = seal(&key, &plaintext);
        assert_eq!(vector["container_sha256"], hex(&Sha256::digest(&container)), "{}", vector["name"]);
        if let Some(expected) = vector["container"].as_str() {
            assert_eq!(hex(&container), expected, "{}", vector["name"]);
        }
    }
}
