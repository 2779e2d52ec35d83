//! How a file is divided into chunks, and whether what the server has of it is of use: decided here, from values alone.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::client::UploadError;
use crate::client::answers::ResumeInfo;
use crate::domain::Digest;

/// Chunks that an upload may have.
pub(super) const MOST_CHUNKS: u64 = 10_000;
/// Where nobody says how large chunks are to be, and the least that a proxy is supposed to let through.
const SMALLEST: u64 = 64 << 10;
/// Without a recommendation.
const UNKNOWN: u64 = 512 << 10;
/// A large file may have chunks so many times larger than recommended: each costs an exchange and a flush to the disk.
const LARGEST_FACTOR: u64 = 8;
/// So many chunks are enough to show progress and to lose little.
const ENOUGH: u64 = 32;

/// A file in chunks: all of one size but the last, which has what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Division {
    /// Bytes of the file; not 0.
    pub(super) size: u64,
    /// Bytes of a chunk; not 0.
    pub(super) chunk: u64,
}

impl Division {
    /// Divides a file.
    ///
    /// `asked` is what the user wants and `recommended` what the server does. `limit` is the largest chunk that gets
    /// through, as far as that has been found out.
    ///
    /// # Errors
    /// [`UploadError::TooManyChunks`] if chunks of that limit are too small for the file.
    pub(super) fn new(
        size: u64,
        asked: Option<u64>,
        recommended: Option<u64>,
        limit: Option<u64>,
    ) -> Result<Self, UploadError> {
        let least = size.div_ceil(MOST_CHUNKS).max(1);
        let wanted = asked.unwrap_or_else(|| {
            // A server that recommends nonsense is not followed.
            let recommended = recommended.unwrap_or(UNKNOWN).clamp(SMALLEST, 1 << 30);
            (size / ENOUGH).clamp(recommended, LARGEST_FACTOR * recommended).next_multiple_of(SMALLEST)
        });
        let limit = limit.unwrap_or(u64::MAX);
        if limit < least {
            return Err(UploadError::TooManyChunks { most: MOST_CHUNKS, limit });
        }
        Ok(Self { size, chunk: wanted.max(least).min(limit).min(size) })
    }

    pub(super) fn count(self) -> u64 {
        self.size.div_ceil(self.chunk)
    }

    /// The bytes of a chunk, from 0.
    pub(super) fn range(self, number: u64) -> Range<u64> {
        let start = number * self.chunk;
        start..self.size.min(start + self.chunk)
    }

    /// Bytes of these chunks.
    pub(super) fn bytes_of(self, chunks: &BTreeSet<u64>) -> u64 {
        chunks.iter().map(|number| self.range(*number)).map(|range| range.end - range.start).sum()
    }
}

/// The largest chunk to try after one of `chunk` bytes was too large (413). `None`: smaller ones would not help.
///
/// Our server says what it takes. A proxy before it only says no.
pub(super) fn smaller(chunk: u64, most: Option<u64>) -> Option<u64> {
    match most {
        // The chunk is not what is too large: the file is.
        Some(most) if most >= chunk => None,
        Some(most) => Some(most).filter(|most| *most > 0),
        None => Some((chunk / 2).max(SMALLEST)).filter(|smaller| *smaller < chunk),
    }
}

/// What the server has of an upload that fits to the file, as far as numbers tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) division: Division,
    pub(super) upload_id: Option<String>,
    pub(super) received: BTreeSet<u64>,
    /// SHA-256 of those of them whose digests the server tells.
    pub(super) hashes: HashMap<u64, Digest>,
}

impl Begun {
    /// Reads what the server says about a file of this size. `None`: nothing to go on with.
    pub(super) fn read(info: ResumeInfo, size: u64, limit: Option<u64>) -> Option<Self> {
        let chunk =
            info.chunk_size.filter(|chunk| *chunk > 0 && limit.is_none_or(|limit| *chunk <= limit))?;
        let division = Division { size, chunk };
        let count = division.count();
        if !info.can_resume || info.total_chunks != Some(count) || count > MOST_CHUNKS {
            return None;
        }
        let received: BTreeSet<u64> = info.received_chunks.into_iter().collect();
        if received.is_empty() || received.iter().any(|number| *number >= count) {
            return None;
        }
        let hashes = info.chunk_hashes.into_iter().filter(|(number, _)| received.contains(number)).collect();
        Some(Self { division, upload_id: info.upload_id, received, hashes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn chunk(size: u64, asked: Option<u64>, recommended: Option<u64>, limit: Option<u64>) -> Option<u64> {
        Division::new(size, asked, recommended, limit).ok().map(|division| division.chunk)
    }

    #[test]
    fn chunks_grow_with_the_file_and_the_network() {
        for (size, asked, recommended, limit, expected) in [
            (6 * MIB, None, Some(MIB), None, Some(MIB)),
            (6 * MIB, None, None, None, Some(MIB / 2)),
            (6 * MIB, None, Some(MIB / 8), None, Some(3 * MIB / 16)),
            (100 * MIB, None, Some(MIB), None, Some(3 * MIB + MIB / 8)),
            (1024 * MIB, None, Some(MIB), None, Some(8 * MIB)),
            (1024 * MIB, None, Some(MIB / 8), None, Some(MIB)),
            // No more than 10,000.
            (100_000 * MIB, None, Some(MIB), None, Some(10 * MIB)),
            (100_000 * MIB, Some(MIB), None, None, Some(10 * MIB)),
            // As asked.
            (6 * MIB, Some(1000), None, None, Some(1000)),
            (6 * MIB, Some(1000), Some(MIB), None, Some(1000)),
            // Not larger than the file, or than what gets through.
            (10, Some(MIB), None, None, Some(10)),
            (10, None, None, None, Some(10)),
            (1024 * MIB, None, Some(MIB), Some(2 * MIB), Some(2 * MIB)),
            (1024 * MIB, Some(4 * MIB), None, Some(2 * MIB), Some(2 * MIB)),
            (100_000 * MIB, None, Some(MIB), Some(MIB), None),
            // Nonsense.
            (10 * MIB, None, Some(0), None, Some(5 * MIB / 16)),
            (u64::MAX, None, Some(u64::MAX), None, Some(u64::MAX.div_ceil(MOST_CHUNKS))),
        ] {
            let found = chunk(size, asked, recommended, limit);
            assert_eq!(found, expected, "{size} {asked:?} {recommended:?} {limit:?}");
            if let Some(chunk) = found {
                assert!(Division { size, chunk }.count() <= MOST_CHUNKS, "{size}");
            }
        }
    }

    #[test]
    fn chunks_cover_the_file_once() {
        for (size, chunk) in [(1, 1), (10, 3), (9, 3), (10, 10), (10, 11)] {
            let division = Division { size, chunk };
            let mut end = 0;
            for number in 0..division.count() {
                let range = division.range(number);
                assert_eq!(range.start, end);
                assert!(range.end > range.start);
                end = range.end;
            }
            assert_eq!(end, size);
            assert_eq!(division.bytes_of(&(0..division.count()).collect()), size);
        }
    }

    #[test]
    fn what_is_too_large_becomes_smaller_until_that_is_no_use() {
        for (chunk, most, expected) in [
            (8 * MIB, Some(MIB), Some(MIB)),
            (8 * MIB, Some(8 * MIB), None),
            (8 * MIB, Some(0), None),
            (8 * MIB, None, Some(4 * MIB)),
            (SMALLEST + 1, None, Some(SMALLEST)),
            (SMALLEST, None, None),
            (10, None, None),
        ] {
            assert_eq!(smaller(chunk, most), expected, "{chunk} {most:?}");
        }
    }

    #[test]
    fn only_an_upload_that_fits_is_gone_on_with() {
        let fits = ResumeInfo {
            received_chunks: vec![2, 0],
            can_resume: true,
            upload_id: Some("u".into()),
            total_chunks: Some(4),
            chunk_size: Some(3),
            chunk_hashes: HashMap::from([(0, Digest::new([1; 32])), (1, Digest::new([2; 32]))]),
        };
        let begun = Begun::read(fits.clone(), 10, None).unwrap();
        assert_eq!(begun.division, Division { size: 10, chunk: 3 });
        assert_eq!(begun.received, BTreeSet::from([0, 2]));
        assert_eq!(begun.hashes.len(), 1, "chunk 1 has not been received");
        assert!(Begun::read(fits.clone(), 10, Some(3)).is_some());
        for (info, size, limit) in [
            (fits.clone(), 13, None),
            (fits.clone(), 9, None),
            (fits.clone(), 10, Some(2)),
            (ResumeInfo { can_resume: false, ..fits.clone() }, 10, None),
            (ResumeInfo { received_chunks: vec![], ..fits.clone() }, 10, None),
            (ResumeInfo { received_chunks: vec![4], ..fits.clone() }, 10, None),
            (ResumeInfo { chunk_size: Some(0), ..fits.clone() }, 10, None),
            (ResumeInfo { chunk_size: None, ..fits.clone() }, 10, None),
            (ResumeInfo { total_chunks: None, ..fits }, 10, None),
        ] {
            assert_eq!(Begun::read(info.clone(), size, limit), None, "{info:?} {size}");
        }
    }
}
