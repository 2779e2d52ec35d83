//! The loops of EAX over blocks. Each is handed to the cipher as a whole (a *closure* of the `cipher` crate), so that all of it, counting and
//! XOR too, is compiled for the instructions that the processor turns out to have, and the round keys stay in registers: with a
//! call for each sixty-four blocks sealing took a quarter longer.

use std::ops::Range;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncBackend, BlockCipherEncClosure, BlockSizeUser, ParBlocks};

use super::eax_lanes::{BLOCK_LEN, LANES};

/// An AES block.
pub(super) type Block = Array<u8, U16>;

/// No vector of it is in two lines of the cache.
#[repr(align(64))]
struct CacheAligned<T>(T);

/// CTR from `counter` on over what stands in `buffer` behind the first `by` bytes, to the start of it.
pub(super) struct Ctr<'a> {
    pub(super) counter: u128,
    pub(super) buffer: &'a mut [u8],
    pub(super) by: usize,
}

impl BlockSizeUser for Ctr<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Ctr<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let Self { mut counter, buffer, by } = self;
        let mut keystream = CacheAligned(ParBlocks::<B>::default());
        let keystream = &mut keystream.0;
        let (piece, length) = (keystream.len() * BLOCK_LEN, buffer.len() - by);
        let whole = length - length % piece;
        for at in (0..whole).step_by(piece) {
            count(counter, keystream);
            counter = counter.wrapping_add(keystream.len() as u128);
            backend.encrypt_par_blocks((&mut *keystream).into());
            // As bytes, which the compiler takes in the widest vectors there are.
            let keystream = Array::slice_as_flattened_mut(keystream);
            if by == 0 {
                buffer[at..][..piece].iter_mut().zip(keystream).for_each(|(data, key)| *data ^= *key);
            } else {
                keystream.iter_mut().zip(&buffer[at + by..][..piece]).for_each(|(key, data)| *key ^= data);
                buffer[at..][..piece].copy_from_slice(keystream);
            }
        }
        for at in (whole..length).step_by(BLOCK_LEN) {
            let mut key = Block::from(counter.to_be_bytes());
            counter = counter.wrapping_add(1);
            backend.encrypt_block((&mut key).into());
            let rest = BLOCK_LEN.min(length - at);
            key.iter_mut().zip(&buffer[at + by..]).for_each(|(key, data)| *key ^= data);
            buffer[at..][..rest].copy_from_slice(&key[..rest]);
        }
    }
}

/// CBC-MAC of [`LANES`] messages in lockstep.
pub(super) struct Absorb<'a> {
    pub(super) states: &'a mut [Block; LANES],
    pub(super) lanes: &'a [&'a [[u8; BLOCK_LEN]]; LANES],
    pub(super) steps: Range<usize>,
}

impl BlockSizeUser for Absorb<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Absorb<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        for step in self.steps {
            for (state, lane) in self.states.iter_mut().zip(self.lanes) {
                xor(state, &lane[step]);
            }
            let (groups, rest) = Array::slice_as_chunks_mut(self.states);
            for group in groups {
                backend.encrypt_par_blocks(group.into());
            }
            backend.encrypt_tail_blocks(rest.into());
        }
    }
}

pub(super) fn xor(block: &mut Block, with: &[u8; BLOCK_LEN]) {
    let sum = u128::from_ne_bytes((*block).into()) ^ u128::from_ne_bytes(*with);
    *block = sum.to_ne_bytes().into();
}

/// Writes consecutive counters, big-endian, as CTR encrypts them.
fn count(counter: u128, blocks: &mut [Block]) {
    let (high, low) = ((counter >> 64) as u64, counter as u64);
    if low.checked_add(blocks.len() as u64).is_none() {
        for (block, step) in blocks.iter_mut().zip(0..) {
            *block = counter.wrapping_add(step).to_be_bytes().into();
        }
        return;
    }
    // But for once in 2^64 blocks, only the lower half changes; so CTR is 1.4 times as fast.
    let high = high.to_be_bytes();
    for (block, step) in blocks.iter_mut().zip(0..) {
        block[..8].copy_from_slice(&high);
        block[8..].copy_from_slice(&(low + step).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_carries_into_its_upper_half_and_wraps() {
        for start in [0, (1 << 64) - 3, u128::MAX - 2, (1 << 100) + u128::from(u64::MAX) - 63] {
            let mut blocks = [Block::default(); 64];
            count(start, &mut blocks);
            for (block, step) in blocks.iter().zip(0..) {
                assert_eq!(u128::from_be_bytes((*block).into()), start.wrapping_add(step));
            }
        }
    }
}
