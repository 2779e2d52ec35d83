//! EAX over AES-128, many messages at a time.
//!
//! EAX (Bellare, Rogaway, Wagner: *The EAX Mode of Operation*, FSE 2004) is CTR encryption plus three OMACs (CMAC, NIST
//! SP 800-38B, with a tweak block in front). CTR fills the processor's AES units by itself; CMAC can't, since each of
//! its blocks waits for the one before. Within one message there is no way round that, but messages do not wait for each
//! other: the CMAC states of up to [`LANES`] messages advance in lockstep, each step being one `encrypt_blocks` over all
//! of them. Sixteen lanes raise the MAC from about 1 to 9 to 11 GB/s on a core (`benches/crypto.rs`); more lanes
//! need more memory for little.
//!
//! The result is EAX, bit for bit: the tests compare it with the `eax` crate at every kind of length.

use std::ops::Range;

use aes::Aes128Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::eax_blocks::{Absorb, Block, Ctr, xor};

/// How many messages advance in lockstep. Larger batches are worked off in groups of this size.
pub const LANES: usize = 16;

/// Length in bytes of an AES block, and so of an EAX tag and of the nonces used here.
pub const BLOCK_LEN: usize = 16;

/// One message of a batch: its nonce, its bytes (replaced in place) and the place of its tag.
#[derive(Debug)]
pub struct Lane<'a> {
    /// Never twice the same under one key when sealing.
    pub nonce: [u8; BLOCK_LEN],
    /// Plaintext before sealing and after opening, ciphertext after sealing and before opening. May be empty.
    pub data: &'a mut [u8],
    /// Written by sealing, read by opening.
    pub tag: &'a mut [u8; BLOCK_LEN],
}

/// The lane of a batch whose tag did not fit: its message, its nonce, the associated data or the key is not what was
/// sealed. The first such lane, where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag of message {lane} of the batch does not fit")]
pub struct TagMismatch {
    /// Index into the batch.
    pub lane: usize,
}

/// The three OMACs of EAX; the number is the last byte of the block put in front (EAX paper, figure 3).
#[derive(Clone, Copy)]
enum Tweak {
    Nonce = 0,
    AssociatedData = 1,
    Message = 2,
}

/// Whether the processor has instructions for AES: with them 512 KiB are opened within a third of a millisecond, without them
/// in several.
pub fn is_fast() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// AES-128-EAX with one key and one associated data, computed once and shared by all messages (and threads).
///
/// Secrets are overwritten on drop, and not shown by `Debug`.
pub struct EaxLanes {
    cipher: Aes128Enc,
    /// CMAC's subkeys for a whole and for a padded final block (SP 800-38B, section 6.1).
    whole: Block,
    padded: Block,
    /// The CMAC states after the tweak blocks 0, 1, 2, which begin every OMAC.
    begun: [Block; 3],
    /// OMAC of the associated data: part of every tag.
    associated: Block,
}

impl EaxLanes {
    /// Expands the key and authenticates the associated data: what all messages have in common.
    pub fn new(key: &[u8; BLOCK_LEN], associated_data: &[u8]) -> Self {
        let cipher = Aes128Enc::new(key.into());
        let mut begun =
            [tweak_block(Tweak::Nonce), tweak_block(Tweak::AssociatedData), tweak_block(Tweak::Message)];
        cipher.encrypt_blocks(&mut begun);
        let whole = double(begun[0]); // E(0), since the tweak block of the nonce is all zero
        let padded = double(whole);
        let mut lanes = Self { cipher, whole, padded, begun, associated: Block::default() };
        let mut associated = [Block::default()];
        lanes.omac(Tweak::AssociatedData, &[associated_data], &mut associated);
        lanes.associated = associated[0];
        lanes
    }

    /// Encrypts each message in place and writes its tag.
    pub fn seal(&self, batch: &mut [Lane<'_>]) {
        for group in batch.chunks_mut(LANES) {
            let mut nonces = [Block::default(); LANES];
            let nonces = &mut nonces[..group.len()];
            self.nonce_omacs(group, nonces);
            for (lane, nonce) in group.iter_mut().zip(&*nonces) {
                self.ctr(u128::from_be_bytes((*nonce).into()), lane.data);
            }
            let mut tags = [Block::default(); LANES];
            let tags = &mut tags[..group.len()];
            self.tags(group, nonces, tags);
            for (lane, tag) in group.iter_mut().zip(tags) {
                *lane.tag = (*tag).into();
            }
        }
    }

    /// Checks every tag of the batch and then, only if all fit, decrypts each message in place.
    ///
    /// # Errors
    /// [`TagMismatch`] if any tag does not fit. Nothing has then been decrypted: `data` is as it was.
    pub fn open(&self, batch: &mut [Lane<'_>]) -> Result<(), TagMismatch> {
        self.verify(batch)?;
        for group in batch.chunks_mut(LANES) {
            let mut nonces = [Block::default(); LANES];
            self.nonce_omacs(group, &mut nonces[..group.len()]);
            for (lane, nonce) in group.iter_mut().zip(&nonces) {
                self.ctr(u128::from_be_bytes((*nonce).into()), lane.data);
            }
        }
        Ok(())
    }

    /// Checks every tag of the batch and decrypts nothing. Each comparison takes the same time wherever tags differ.
    ///
    /// # Errors
    /// [`TagMismatch`] if any tag does not fit.
    pub fn verify(&self, batch: &[Lane<'_>]) -> Result<(), TagMismatch> {
        for (number, group) in batch.chunks(LANES).enumerate() {
            let mut nonces = [Block::default(); LANES];
            let nonces = &mut nonces[..group.len()];
            self.nonce_omacs(group, nonces);
            let mut tags = [Block::default(); LANES];
            let tags = &mut tags[..group.len()];
            self.tags(group, nonces, tags);
            let wrong =
                group.iter().zip(tags).position(|(lane, tag)| !bool::from(lane.tag[..].ct_eq(&tag[..])));
            if let Some(lane) = wrong {
                return Err(TagMismatch { lane: number * LANES + lane });
            }
        }
        Ok(())
    }

    /// Decrypts one message whose tag has been checked by [`verify`](Self::verify), moving it `by` bytes towards the
    /// start of `buffer` on its way: from `from..from + len` to `from - by..from - by + len`.
    pub(super) fn decrypt_moving(
        &self,
        nonce: &[u8; BLOCK_LEN],
        buffer: &mut [u8],
        from: usize,
        len: usize,
        by: usize,
    ) {
        let mut start = [Block::default()];
        self.omac(Tweak::Nonce, &[nonce], &mut start);
        let counter = u128::from_be_bytes(start[0].into());
        self.cipher.encrypt_with_backend(Ctr { counter, buffer: &mut buffer[from - by..from + len], by });
    }

    /// XORs the keystream that starts at `counter` into `data`.
    fn ctr(&self, counter: u128, data: &mut [u8]) {
        self.cipher.encrypt_with_backend(Ctr { counter, buffer: data, by: 0 });
    }

    fn nonce_omacs(&self, group: &[Lane<'_>], out: &mut [Block]) {
        let mut nonces: [&[u8]; LANES] = [&[]; LANES];
        for (nonce, lane) in nonces.iter_mut().zip(group) {
            *nonce = &lane.nonce;
        }
        self.omac(Tweak::Nonce, &nonces[..group.len()], out);
    }

    /// Tag = OMAC⁰(nonce) ⊕ OMAC¹(associated data) ⊕ OMAC²(ciphertext).
    fn tags(&self, group: &[Lane<'_>], nonces: &[Block], out: &mut [Block]) {
        let mut messages: [&[u8]; LANES] = [&[]; LANES];
        for (message, lane) in messages.iter_mut().zip(group) {
            *message = &*lane.data;
        }
        self.omac(Tweak::Message, &messages[..group.len()], out);
        for (tag, nonce) in out.iter_mut().zip(nonces) {
            xor(tag, nonce.as_ref());
            xor(tag, &self.associated.0);
        }
    }

    /// OMAC with this tweak of at most [`LANES`] messages, in lockstep; `out` has a block for each.
    fn omac(&self, tweak: Tweak, messages: &[&[u8]], out: &mut [Block]) {
        debug_assert!(messages.len() <= LANES && messages.len() == out.len());
        // Longest first, so that the lanes still at work are always a prefix.
        let mut order: [usize; LANES] = std::array::from_fn(|i| i);
        let order = &mut order[..messages.len()];
        order.sort_unstable_by_key(|&i| std::cmp::Reverse(messages[i].len()));

        let mut states = [self.begun[tweak as usize]; LANES];
        let mut blocks: [&[[u8; BLOCK_LEN]]; LANES] = [&[]; LANES];
        for (lane, &i) in blocks.iter_mut().zip(&*order) {
            *lane = inner_blocks(messages[i]);
        }
        let mut done = 0;
        for active in (1..=messages.len()).rev() {
            let until = blocks[active - 1].len();
            self.absorb(&mut states[..active], &blocks[..active], done..until);
            done = until;
        }
        for (state, &i) in states.iter_mut().zip(&*order) {
            self.absorb_last(tweak, state, messages[i]);
        }
        self.cipher.encrypt_blocks(&mut states[..messages.len()]);
        for (state, &i) in states.iter().zip(&*order) {
            out[i] = *state;
        }
    }

    /// Advances all `states` over the same `steps` of their lanes' blocks.
    fn absorb(&self, states: &mut [Block], lanes: &[&[[u8; BLOCK_LEN]]], steps: Range<usize>) {
        // The usual case with its number of lanes known to the compiler.
        if let (Ok(states), Ok(lanes)) =
            (<&mut [Block; LANES]>::try_from(&mut *states), <&[&[[u8; BLOCK_LEN]]; LANES]>::try_from(lanes))
        {
            self.cipher.encrypt_with_backend(Absorb { states, lanes, steps });
            return;
        }
        for step in steps {
            for (state, lane) in states.iter_mut().zip(lanes) {
                xor(state, &lane[step]);
            }
            self.cipher.encrypt_blocks(states);
        }
    }

    /// Adds the final block, padded where it isn't whole, and CMAC's subkey; the last encryption is the caller's.
    fn absorb_last(&self, tweak: Tweak, state: &mut Block, message: &[u8]) {
        if message.is_empty() {
            // Then the tweak block itself is the final one.
            *state = tweak_block(tweak);
            xor(state, &self.whole.0);
            return;
        }
        let last = &message[inner_blocks(message).len() * BLOCK_LEN..];
        for (byte, value) in state.iter_mut().zip(last) {
            *byte ^= value;
        }
        match state.get_mut(last.len()) {
            None => xor(state, &self.whole.0),
            Some(after) => {
                *after ^= 0x80;
                xor(state, &self.padded.0);
            }
        }
    }
}

impl std::fmt::Debug for EaxLanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EaxLanes").finish_non_exhaustive()
    }
}

impl Drop for EaxLanes {
    fn drop(&mut self) {
        // The key schedule is overwritten by `aes` itself (feature `zeroize`).
        for block in
            [&mut self.whole, &mut self.padded, &mut self.associated].into_iter().chain(&mut self.begun)
        {
            block.0.zeroize();
        }
    }
}

/// The whole blocks of a message but for its final one, which CMAC treats apart.
fn inner_blocks(message: &[u8]) -> &[[u8; BLOCK_LEN]] {
    let (blocks, rest) = message.as_chunks();
    if rest.is_empty() { &blocks[..blocks.len().saturating_sub(1)] } else { blocks }
}

fn tweak_block(tweak: Tweak) -> Block {
    let mut block = Block::default();
    block[BLOCK_LEN - 1] = tweak as u8;
    block
}

/// Multiplication by x in GF(2^128) (SP 800-38B, section 6.1), without a branch on the secret.
fn double(block: Block) -> Block {
    let value = u128::from_be_bytes(block.into());
    let carry = (value >> 127) * 0x87;
    ((value << 1) ^ carry).to_be_bytes().into()
}

#[cfg(test)]
#[path = "eax_lanes_tests.rs"]
mod tests;
