//! The older format: one AES-128-EAX message a file. Read, never written.
//!
//! ```text
//! nonce (16) | tag (16) | ciphertext
//! ```
//!
//! The key is the first 16 bytes of `ENCRYPTION_KEY` (UTF-8), there is no associated data, and the tag covers the
//! whole file. So it has to be read twice: once to verify it, once to decrypt it.

use std::io::{self, Read, Seek, SeekFrom};

use aes::Aes128Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use cmac::{Cmac, Mac};
use subtle::ConstantTimeEq;

use super::eax_lanes::BLOCK_LEN;
use super::keyring::Keyring;

/// Bytes before the ciphertext: nonce and tag.
pub const PREFIX_LEN: usize = 2 * BLOCK_LEN;

/// Read at once: flat memory, whatever the length of the file.
const PIECE: usize = 64 * 1024;

/// Why a file of the older format could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SingleMessageError {
    /// Too short to hold nonce and tag.
    #[error("{0} bytes are too few for a file of the older format")]
    TooShort(u64),
    /// The tag fits no key of the keyring: damaged, tampered with, or sealed under another key.
    #[error("damaged, tampered with, or sealed under another key")]
    Tampered,
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A file of the older format whose tag has been verified; reads as its plaintext, in flat memory.
///
/// The file could change between the two passes. So the second one computes the tag once more, and where it no longer
/// fits, the last piece is withheld and the reader gets an [`io::Error`] of kind `InvalidData`.
pub struct SingleMessage<R> {
    inner: R,
    tag: [u8; BLOCK_LEN],
    mac: MessageMac,
    keystream: StreamCipherCoreWrapper<ctr::CtrCore<Aes128Enc, ctr::flavors::Ctr128BE>>,
    /// Ciphertext bytes not read yet.
    left: u64,
    len: u64,
}

impl<R: Read + Seek> SingleMessage<R> {
    /// Verifies the whole of `inner` under each key of the keyring at once, in one pass.
    ///
    /// # Errors
    /// [`SingleMessageError`].
    pub fn verify(mut inner: R, keyring: &Keyring) -> Result<Self, SingleMessageError> {
        let total = inner.seek(SeekFrom::End(0))?;
        let len = total.checked_sub(PREFIX_LEN as u64).ok_or(SingleMessageError::TooShort(total))?;
        inner.rewind()?;
        let (mut nonce, mut tag) = ([0; BLOCK_LEN], [0; BLOCK_LEN]);
        inner.read_exact(&mut nonce)?;
        inner.read_exact(&mut tag)?;

        let keys: Vec<_> = keyring.single_message_keys().collect();
        let mut macs: Vec<_> = keys.iter().map(|key| MessageMac::new(key, &nonce)).collect();
        let mut piece = vec![0; PIECE];
        let mut left = len;
        while left > 0 {
            let piece = &mut piece[..PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            inner.read_exact(piece)?;
            macs.iter_mut().for_each(|mac| mac.ciphertext.update(piece));
            left -= piece.len() as u64;
        }
        let key = keys.iter().zip(macs).find(|(_, mac)| mac.fits(&tag)).map(|(key, _)| key);
        let key = key.ok_or(SingleMessageError::Tampered)?;

        inner.seek(SeekFrom::Start(PREFIX_LEN as u64))?;
        let mac = MessageMac::new(key, &nonce);
        let cipher = Aes128Enc::new((&**key).into());
        let keystream =
            StreamCipherCoreWrapper::from_core(ctr::CtrCore::inner_iv_init(cipher, &mac.nonce.into()));
        Ok(Self { inner, tag, mac, keystream, left: len, len })
    }

    /// Bytes of plaintext.
    pub const fn plaintext_len(&self) -> u64 {
        self.len
    }
}

impl<R: Read> Read for SingleMessage<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let len = self.inner.read(&mut out[..want])?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let piece = &mut out[..len];
        self.mac.ciphertext.update(piece);
        self.left -= len as u64;
        if self.left == 0 && !self.mac.fits(&self.tag) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, SingleMessageError::Tampered));
        }
        self.keystream.apply_keystream(piece);
        Ok(len)
    }
}

impl<R> std::fmt::Debug for SingleMessage<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleMessage")
            .field("len", &self.len)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// EAX's tag, with the ciphertext still to come. OMAC with tweak t is CMAC over a block that ends in t, then the data.
struct MessageMac {
    nonce: [u8; BLOCK_LEN],
    associated: [u8; BLOCK_LEN],
    ciphertext: Cmac<Aes128Enc>,
}

impl MessageMac {
    fn new(key: &[u8; BLOCK_LEN], nonce: &[u8; BLOCK_LEN]) -> Self {
        let begun = |tweak: u8| {
            let mut mac = <Cmac<Aes128Enc> as KeyInit>::new(key.into());
            mac.update(&u128::from(tweak).to_be_bytes());
            mac
        };
        Self {
            nonce: begun(0).chain_update(nonce).finalize().into_bytes().into(),
            associated: begun(1).finalize().into_bytes().into(),
            ciphertext: begun(2),
        }
    }

    /// In constant time.
    fn fits(&self, tag: &[u8; BLOCK_LEN]) -> bool {
        let ciphertext = self.ciphertext.clone().finalize().into_bytes();
        let computed: [u8; BLOCK_LEN] =
            std::array::from_fn(|i| self.nonce[i] ^ self.associated[i] ^ ciphertext[i]);
        computed.ct_eq(tag).into()
    }
}

#[cfg(test)]
#[path = "single_message_tests.rs"]
mod tests;
