//! What is inside a hash of `sha2`: at the end of a block its state can be taken out, advanced, and put back.

use sha2::Sha256;
use sha2::digest::common::hazmat::SerializableState;

/// Length in bytes of a block of SHA-256.
pub(super) const BLOCK_LEN: usize = 64;

pub(super) type Block = [u8; BLOCK_LEN];

/// Blocks that are hashed together, where several hashes go at the same time.
pub(super) const GROUP: usize = 16;

pub(super) type Group = [Block; GROUP];

pub(super) const GROUP_LEN: usize = GROUP * BLOCK_LEN;

/// The working variables a to h of one hash (FIPS 180-4, section 6.2.2).
pub(super) type State = [u32; 8];

// A hash as sha2 0.11 serializes it, little-endian: the eight words of the state, the number of blocks it has taken, then
// the length of the block it has begun, followed by the bytes of that.
const WORDS: std::ops::Range<usize> = 0..32;
const BLOCKS_TAKEN: std::ops::Range<usize> = 32..40;
const BEGUN_LEN: usize = 40;

/// The constants of the 64 rounds (FIPS 180-4, section 4.2.2), four to a step.
#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
pub(super) const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Bytes of a block that the hash has begun.
pub(super) fn begun(hash: &Sha256) -> usize {
    usize::from(hash.serialize()[BEGUN_LEN])
}

/// `compress` takes the states of `hashes`, which are at the ends of blocks, over so many blocks each. `false`: it did
/// not come to that, and nothing has changed.
pub(super) fn advance<const N: usize>(
    hashes: [&mut Sha256; N],
    blocks: usize,
    compress: impl FnOnce(&mut [State; N]),
) -> bool {
    let mut serialized = hashes.each_ref().map(|hash| hash.serialize());
    debug_assert!(serialized.iter().all(|hash| hash[BEGUN_LEN] == 0));
    let mut states = serialized.each_ref().map(|hash| {
        let (words, _) = hash[WORDS].as_chunks();
        std::array::from_fn(|i| u32::from_le_bytes(words[i]))
    });
    compress(&mut states);
    for (hash, state) in serialized.iter_mut().zip(&states) {
        let (words, _) = hash[WORDS].as_chunks_mut();
        for (word, value) in words.iter_mut().zip(state) {
            *word = value.to_le_bytes();
        }
        let (counts, _) = hash[BLOCKS_TAKEN].as_chunks_mut();
        for count in counts {
            *count = u64::from_le_bytes(*count).wrapping_add(blocks as u64).to_le_bytes();
        }
    }
    let advanced = serialized.each_ref().map(Sha256::deserialize);
    // They all are, with the layout above.
    let all = advanced.iter().all(Result::is_ok);
    if all {
        for (hash, advanced) in hashes.into_iter().zip(advanced) {
            advanced.into_iter().for_each(|advanced| *hash = advanced);
        }
    }
    all
}
