//! SHA-256 of what is on this machine's disk.

use std::fs::File;
use std::io::{self, Read};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::progress::{Event, Observer};
use crate::domain::Digest;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// What a file was like when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) size: u64,
    /// `None` where the file system has no such times.
    pub(super) modified: Option<SystemTime>,
    pub(super) digest: Digest,
}

/// The digest of everything that the hasher was given.
pub(super) fn finish(hasher: Sha256) -> Digest {
    Digest::new(hasher.finalize().into())
}

/// Feeds the next `size` bytes of a file to a hasher. Blocks; to be called on a thread that may.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file is shorter; [`io::ErrorKind::Interrupted`] once `stop` is cancelled.
pub(super) fn feed(
    hasher: &mut Sha256,
    file: &mut File,
    size: u64,
    stop: &CancellationToken,
    observer: &Observer,
) -> io::Result<()> {
    let mut left = size;
    let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE)).max(1)];
    while left > 0 {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match file.read(&mut piece[..wanted]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..read]);
        left -= read as u64;
        observer(Event::Advanced(read as u64));
    }
    Ok(())
}

/// Runs work that blocks on a thread that may; the token that it gets is cancelled when the future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(CancellationToken) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let stop = CancellationToken::new();
    let _stop_if_dropped = stop.clone().drop_guard();
    tokio::task::spawn_blocking(move || work(stop)).await.map_err(io::Error::other)?
}
