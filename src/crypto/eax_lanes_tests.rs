use aes::Aes128;
use eax::Eax;
use eax::aead::{AeadInOut, KeyInit as _};
use proptest::prelude::*;

use super::*;

/// What the `eax` crate makes of one message: ciphertext and tag.
fn by_the_crate(key: &[u8; 16], nonce: &[u8; 16], associated: &[u8], message: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let mut data = message.to_vec();
    let eax = Eax::<Aes128>::new(key.into());
    let tag = eax.encrypt_inout_detached(nonce.into(), associated, data.as_mut_slice().into()).unwrap();
    (data, tag.into())
}

fn batch<'a>(nonces: &[[u8; 16]], messages: &'a mut [Vec<u8>], tags: &'a mut [[u8; 16]]) -> Vec<Lane<'a>> {
    let lanes = nonces.iter().zip(messages).zip(tags);
    lanes.map(|((&nonce, data), tag)| Lane { nonce, data, tag }).collect()
}

/// Seals with lanes, compares each message with the crate, opens again.
fn compare(key: [u8; 16], associated: &[u8], messages: &[Vec<u8>]) {
    let eax = EaxLanes::new(&key, associated);
    let nonces: Vec<[u8; 16]> = (0..messages.len() as u128).map(|n| (n * 0x1_0001).to_be_bytes()).collect();
    let (mut data, mut tags) = (messages.to_vec(), vec![[0; 16]; messages.len()]);
    eax.seal(&mut batch(&nonces, &mut data, &mut tags));
    for (index, message) in messages.iter().enumerate() {
        let expected = by_the_crate(&key, &nonces[index], associated, message);
        assert!(
            (&data[index], &tags[index]) == (&expected.0, &expected.1),
            "message {index} of {} bytes in a batch of {}",
            message.len(),
            messages.len()
        );
    }
    eax.open(&mut batch(&nonces, &mut data, &mut tags)).unwrap();
    assert!(data == messages);
}

fn message_len() -> impl Strategy<Value = usize> {
    prop_oneof![
        // The edges of CMAC's final block: none, part of one, whole, part of the next.
        prop::sample::select(vec![0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 255, 256, 257]),
        0_usize..600,
    ]
}

proptest! {
    #[test]
    fn lanes_equal_the_crate(
        key: [u8; 16],
        associated in prop::collection::vec(any::<u8>(), 0..60),
        lens in prop::collection::vec(message_len(), 0..40),
        seed: u8,
    ) {
        let fill = |len: usize| (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        let messages: Vec<Vec<u8>> = lens.into_iter().map(fill).collect();
        compare(key, &associated, &messages);
    }

    #[test]
    fn one_wrong_tag_keeps_the_whole_batch_shut(
        lens in prop::collection::vec(message_len(), 1..40), which: prop::sample::Index, bit in 0_u32..128,
    ) {
        let eax = EaxLanes::new(&[9; 16], b"header");
        let mut data: Vec<Vec<u8>> = lens.iter().map(|&len| vec![0x55; len]).collect();
        let nonces: Vec<[u8; 16]> = (0..lens.len() as u128).map(u128::to_be_bytes).collect();
        let mut tags = vec![[0; 16]; lens.len()];
        eax.seal(&mut batch(&nonces, &mut data, &mut tags));
        let sealed = data.clone();
        let lane = which.index(lens.len());
        tags[lane] = (u128::from_be_bytes(tags[lane]) ^ 1 << bit).to_be_bytes();
        prop_assert_eq!(eax.open(&mut batch(&nonces, &mut data, &mut tags)), Err(TagMismatch { lane }));
        prop_assert!(data == sealed, "nothing may be decrypted");
    }
}

#[test]
fn whole_batches_equal_the_crate_at_segment_edges() {
    const SEGMENT: usize = 64 * 1024;
    // One more and one fewer than the lanes; a short last segment, as every file has; all of one length.
    for lens in [
        vec![SEGMENT; LANES],
        [vec![SEGMENT; LANES], vec![1]].concat(),
        [vec![SEGMENT; LANES - 1], vec![SEGMENT - 1]].concat(),
        vec![SEGMENT + 1, 0, SEGMENT, 16, SEGMENT - 16],
    ] {
        let messages: Vec<Vec<u8>> = lens.into_iter().map(|len| vec![0xA5; len]).collect();
        compare([3; 16], b"associated", &messages);
    }
}

/// Some of those in the EAX paper's appendix.
#[test]
fn the_vectors_of_the_paper() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    for (message, key, nonce, header, cipher) in [
        (
            "",
            "233952DEE4D5ED5F9B9C6D6FF80FF478",
            "62EC67F9C3A4A407FCB2A8C49031A8B3",
            "6BFB914FD07EAE6B",
            "E037830E8389F27B025A2D6527E79D01",
        ),
        (
            "F7FB",
            "91945D3F4DCBEE0BF45EF52255F095A4",
            "BECAF043B0A23D843194BA972C66DEBD",
            "FA3BFD4806EB53FA",
            "19DD5C4C9331049D0BDAB0277408F67967E5",
        ),
        (
            "8B0A79306C9CE7ED99DAE4F87F8DD61636",
            "7C77D6E813BED5AC98BAA417477A2E7D",
            "1A8C98DCD73D38393B2BF1569DEEFC19",
            "65D2017990D62528",
            "02083E3979DA014812F59F11D52630DA30137327D10649B0AA6E1C181DB617D7F2",
        ),
        (
            "CA40D7446E545FFAED3BD12A740A659FFBBB3CEAB7",
            "8395FCF1E95BEBD697BD010BC766AAC3",
            "22E7ADD93CFC6393C57EC0B3C17D6B44",
            "126735FCC320D25A",
            "CB8920F87A6C75CFF39627B56E3ED197C552D295A7CFC46AFC253B4652B1AF3795B124AB6E",
        ),
    ] {
        let (mut data, cipher) = (hex(message), hex(cipher));
        let mut tag = [0; 16];
        let eax = EaxLanes::new(&hex(key).try_into().unwrap(), &hex(header));
        eax.seal(&mut [Lane { nonce: hex(nonce).try_into().unwrap(), data: &mut data, tag: &mut tag }]);
        assert_eq!([&data[..], &tag].concat(), cipher);
    }
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", EaxLanes::new(&[7; 16], b"")), "EaxLanes { .. }");
}
