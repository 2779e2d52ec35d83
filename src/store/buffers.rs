//! Buffers of one size that are used again and again, so that they stay in the processor's cache.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that are kept for reuse, last in first out: the last one used is the one still in the cache. Short locks.
pub(crate) struct Pool {
    size: usize,
    most: usize,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// A buffer, from a pool unless it is a small one.
pub(crate) struct Buffer {
    pool: &'static Pool,
    memory: Vec<u8>,
    length: usize,
}

impl Pool {
    /// Keeps up to `most` buffers of `size` bytes.
    pub(crate) const fn new(size: usize, most: usize) -> Self {
        Self { size, most, kept: Mutex::new(Vec::new()) }
    }

    /// A buffer of `length` bytes; what is in it is anything.
    pub(crate) fn take(&'static self, length: usize) -> Buffer {
        if length <= self.size / 4 || length > self.size {
            return Buffer { pool: self, memory: vec![0; length], length };
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { pool: self, memory: kept.unwrap_or_else(|| vec![0; self.size]), length }
    }
}

impl Buffer {
    /// The bytes, to be written.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }

    /// The first `length` bytes, without copying them; dropped, they go back to the pool.
    pub(crate) fn into_bytes(mut self, length: usize) -> Bytes {
        if self.memory.len() == self.pool.size {
            self.length = length;
            Bytes::from_owner(self)
        } else {
            let mut memory = std::mem::take(&mut self.memory);
            memory.truncate(length);
            memory.into()
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() == self.pool.size {
            let mut kept = self.pool.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < self.pool.most {
                kept.push(std::mem::take(&mut self.memory));
            }
        }
    }
}
