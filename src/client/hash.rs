//! SHA-256 of what is on this machine's disk.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::body::read_exact_at;
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

/// The digest of a part of a file. Blocks; to be called on a thread that may.
///
/// # Errors
/// As [`feed`].
pub(super) fn part(file: &File, range: Range<u64>, stop: &CancellationToken) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let size = range.end - range.start;
    let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
    let mut at = range.start;
    while at < range.end {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = piece.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        read_exact_at(file, &mut piece[..wanted], at)?;
        hasher.update(&piece[..wanted]);
        at += wanted as u64;
    }
    Ok(finish(hasher))
}

/// Runs work that blocks on a thread that may; the token that it gets is cancelled when the future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(CancellationToken) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let stop = CancellationToken::new();
    let _stop_if_dropped = stop.clone().drop_guard();
    tokio::task::spawn_blocking(move || work(stop)).await.map_err(io::Error::other)?
}
