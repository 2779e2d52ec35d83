//! Two SHA-256 (FIPS 180-4, section 6.2) over the same bytes.
//!
//! A chunk is hashed by itself and as the next bytes of its file. With the instructions of Intel's SHA Extensions (Gulley
//! et al., *Intel SHA Extensions*, 2013) a single hash waits most of the time: each pair of its rounds needs the result
//! of the one before, and only every second issue slot of the unit is used. Two hashes don't wait for each other. In
//! lockstep they fill the unit, and share the message schedule, which depends on the bytes alone: on a Zen 5 core
//! both take 1.3 times as long as one, where one after the other takes twice as long (`benches/crypto.rs`).
//!
//! The hashes themselves stay those of `sha2`. Only whole blocks pass it by: the states are taken out, advanced, and put
//! back. Where the processor lacks the instructions, or the hashes do not reach the ends of their blocks at the same
//! byte, `sha2` takes the bytes for one after the other.

use sha2::{Digest as _, Sha256};

use super::lockstep::ShaExtensions;
use super::state::{BLOCK_LEN, Block, advance, begun};

/// In fewer bytes, taking the states out and putting them back costs more than lockstep gains (`benches/crypto.rs`).
const WORTHWHILE: usize = 8 * BLOCK_LEN;

/// Two SHA-256 of which both take the same bytes from now on.
#[derive(Debug, Clone)]
pub struct Sha256Pair {
    hashes: [Sha256; 2],
    /// `None` when each has to go its own way.
    lockstep: Option<Lockstep>,
}

#[derive(Debug, Clone, Copy)]
struct Lockstep {
    cpu: ShaExtensions,
    /// Bytes of a begun block that each hash holds: as many in both, not necessarily the same.
    begun: usize,
}

impl Sha256Pair {
    /// Goes on with both. It is faster if both have taken the same number of bytes modulo 64; any are right.
    pub fn new(first: Sha256, second: Sha256) -> Self {
        // Unoptimised, each instruction below is a call, and lockstep takes a hundred times as long as `sha2`.
        if cfg!(debug_assertions) { Self::apart(first, second) } else { Self::lockstep(first, second) }
    }

    /// In lockstep, if they and the processor can.
    fn lockstep(first: Sha256, second: Sha256) -> Self {
        let begun = begun(&first);
        let aligned = begun == super::state::begun(&second);
        let lockstep = ShaExtensions::detect().filter(|_| aligned).map(|cpu| Lockstep { cpu, begun });
        Self { hashes: [first, second], lockstep }
    }

    fn apart(first: Sha256, second: Sha256) -> Self {
        Self { hashes: [first, second], lockstep: None }
    }

    /// Both take these bytes. Large pieces are faster: states are taken out and put back once for each.
    pub fn update(&mut self, bytes: &[u8]) {
        let Some(Lockstep { cpu, begun }) = self.lockstep else { return self.one_after_the_other(bytes) };
        self.lockstep = Some(Lockstep { cpu, begun: (begun + bytes.len()) % BLOCK_LEN });
        let missing = (BLOCK_LEN - begun) % BLOCK_LEN;
        match bytes.split_at_checked(missing) {
            Some((head, rest)) if rest.len() >= WORTHWHILE => {
                self.one_after_the_other(head);
                let (blocks, tail) = rest.as_chunks();
                self.in_lockstep(cpu, blocks);
                self.one_after_the_other(tail);
            }
            _ => self.one_after_the_other(bytes),
        }
    }

    /// Both, as they are now.
    pub fn split(self) -> (Sha256, Sha256) {
        let [first, second] = self.hashes;
        (first, second)
    }

    fn one_after_the_other(&mut self, bytes: &[u8]) {
        for hash in &mut self.hashes {
            hash.update(bytes);
        }
    }

    /// Both are at the end of a block.
    fn in_lockstep(&mut self, cpu: ShaExtensions, blocks: &[Block]) {
        let [first, second] = &mut self.hashes;
        if !advance([first, second], blocks.len(), |states| cpu.over_the_same(states, blocks)) {
            self.one_after_the_other(blocks.as_flattened());
        }
    }
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
