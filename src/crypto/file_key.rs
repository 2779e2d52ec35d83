//! What sealing and opening one container have in common: its key, ready for use, and its segments' nonces.

use super::bytes::{FileNonce, Tag};
use super::container::{HEADER_LEN, Header};
use super::eax_lanes::{EaxLanes, Lane};
use super::keyring::Keyring;
use super::layout::{Geometry, Layout, MAX_SEGMENTS, SALT_LEN, SEGMENT_OVERHEAD, TAG_LEN};
use super::open::OpenError;
use super::seal::{Ends, SealError};

/// The key of one container, expanded once: immutable, so that any number of threads may seal and open different
/// parts at the same time (share it in an `Arc`). Overwritten on drop; `Debug` shows the header alone.
#[derive(Debug)]
pub struct FileKey {
    header: Header,
    eax: EaxLanes,
}

impl FileKey {
    /// Starts a new container under the present key, with a file nonce from the operating system.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn create(keyring: &Keyring, geometry: Geometry) -> Result<Self, SealError> {
        let header =
            Header { key_id: keyring.current_id(), file_nonce: FileNonce::from_bytes(random()?), geometry };
        Self::for_header(header, keyring).ok_or(SealError::NoKey)
    }

    /// The key of a container that is there, whole or in the making. `None` where the keyring lacks its key.
    pub fn for_header(header: Header, keyring: &Keyring) -> Option<Self> {
        let key = keyring.file_key(header.key_id, &header.file_nonce)?;
        Some(Self { header, eax: EaxLanes::new(&key, &header.encode()) })
    }

    /// The header of the container.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The first [`HEADER_LEN`] bytes of the container.
    pub fn header_bytes(&self) -> [u8; HEADER_LEN] {
        self.header.encode()
    }

    /// Seals consecutive segments in place, from number `first` on.
    ///
    /// `segments` has them as they will stand in the container: for each, 8 bytes of room, the plaintext, 16 bytes of
    /// room. All but the last must be whole ([`Geometry::whole_segment_len`]); the last too, unless the file ends with
    /// it. It is the caller's part to give `Ends::File` for the last segment of the file and for no other;
    /// [`Sealer`](super::seal::Sealer) sees to all that.
    ///
    /// The tag returned is that of the last segment. Sealing a segment twice is safe, with whatever plaintext.
    ///
    /// # Errors
    /// [`SealError::Segments`] where the buffer does not fit; [`SealError::Random`]; [`SealError::TooLong`]. Then
    /// nothing has been sealed.
    pub fn seal_segments(&self, first: u64, ends: Ends, segments: &mut [u8]) -> Result<Tag, SealError> {
        self.seal_with_salt(first, ends, segments, random()?)
    }

    /// [`seal_segments`](Self::seal_segments) with a given salt, which must be new: for it and for test vectors.
    pub(super) fn seal_with_salt(
        &self,
        first: u64,
        ends: Ends,
        segments: &mut [u8],
        salt: [u8; SALT_LEN],
    ) -> Result<Tag, SealError> {
        let lens = self.whole_lens(first, ends, segments.len())?;
        self.header.geometry.segment_position(first + lens.len() as u64).map_err(|_| SealError::TooLong)?;
        let last = lens.len() - 1;
        let mut lanes = Vec::with_capacity(lens.len());
        for (index, part) in split(segments, &lens).enumerate() {
            *part.salt = salt;
            let is_last = ends == Ends::File && index == last;
            lanes.push(Lane {
                nonce: segment_nonce(&salt, first + index as u64, is_last),
                data: part.data,
                tag: part.tag,
            });
        }
        self.eax.seal(&mut lanes);
        lanes.last().map(|lane| Tag::from_bytes(*lane.tag)).ok_or(SealError::Segments)
    }

    /// Verifies consecutive segments of the container, from number `first` on, and opens them in place.
    ///
    /// Returns their plaintext, moved together at the start of `segments`.
    ///
    /// # Errors
    /// [`OpenError::Segments`] where the buffer does not hold whole segments of this layout; [`OpenError::Tampered`]
    /// where any of them is not what was sealed at this place. Then nothing has been decrypted.
    pub fn open_segments<'b>(
        &self,
        layout: &Layout,
        first: u64,
        segments: &'b mut [u8],
    ) -> Result<&'b mut [u8], OpenError> {
        let mut lens = Vec::new();
        let mut left = segments.len();
        while left > 0 {
            let segment = layout.segment(first.saturating_add(lens.len() as u64))?;
            left = left.checked_sub(segment.sealed_len()).ok_or(OpenError::Segments)?;
            lens.push(segment.len);
        }
        let ends_file = first + lens.len() as u64 == layout.segments();
        let lanes: Vec<Lane<'_>> = split(segments, &lens)
            .enumerate()
            .map(|(index, part)| Lane {
                nonce: segment_nonce(part.salt, first + index as u64, ends_file && index + 1 == lens.len()),
                data: part.data,
                tag: part.tag,
            })
            .collect();
        self.eax
            .verify(&lanes)
            .map_err(|wrong| OpenError::Tampered { segment: first + wrong.lane as u64 })?;

        let nonces: Vec<_> = lanes.into_iter().map(|lane| lane.nonce).collect();
        let (mut from, mut to) = (SALT_LEN, 0);
        for (nonce, &len) in nonces.iter().zip(&lens) {
            self.eax.decrypt_moving(nonce, segments, from, len, from - to);
            from += len + SEGMENT_OVERHEAD;
            to += len;
        }
        Ok(&mut segments[..to])
    }

    /// Makes a whole segment, sealed as one that others follow, the last of the file: for an upload whose end shows only
    /// after its last chunk was sealed. `segment` has its bytes of the container; they are replaced.
    ///
    /// # Errors
    /// [`SealError::Segments`] where the bytes are not as many as a whole segment has; [`SealError::Tampered`] where they
    /// are not that segment; [`SealError::Random`]. Then `segment` is as it was.
    pub fn reseal_as_last(&self, number: u64, segment: &mut [u8]) -> Result<Tag, SealError> {
        let salt: [u8; SALT_LEN] = random()?;
        let lens = self.whole_lens(number, Ends::Chunk, segment.len())?;
        let Some(part) = split(segment, &lens).next().filter(|_| lens.len() == 1) else {
            return Err(SealError::Segments);
        };
        let nonce = segment_nonce(part.salt, number, false);
        let mut lane = [Lane { nonce, data: part.data, tag: part.tag }];
        self.eax.open(&mut lane).map_err(|_| SealError::Tampered { segment: number })?;
        lane[0].nonce = segment_nonce(&salt, number, true);
        self.eax.seal(&mut lane);
        *part.salt = salt;
        Ok(Tag::from_bytes(*lane[0].tag))
    }

    /// Plaintext lengths of the segments in a buffer of `len` bytes that starts with segment `first`, where the length of
    /// the file isn't known yet.
    fn whole_lens(&self, first: u64, ends: Ends, len: usize) -> Result<Vec<usize>, SealError> {
        let mut lens = Vec::new();
        let mut left = len;
        while left > 0 {
            let number = first.checked_add(lens.len() as u64).filter(|&number| number < MAX_SEGMENTS);
            let whole = self.header.geometry.whole_segment_len(number.ok_or(SealError::TooLong)?);
            let here = left.checked_sub(SEGMENT_OVERHEAD).ok_or(SealError::Segments)?.min(whole);
            let empty_file = here == 0 && number == Some(0);
            if here < whole && (ends == Ends::Chunk || (here == 0 && !empty_file)) {
                return Err(SealError::Segments);
            }
            left -= here + SEGMENT_OVERHEAD;
            lens.push(here);
        }
        if lens.is_empty() { Err(SealError::Segments) } else { Ok(lens) }
    }
}

/// Nonce of a segment; see [`container`](super::container).
fn segment_nonce(salt: &[u8; SALT_LEN], number: u64, last: bool) -> [u8; 16] {
    debug_assert!(number < MAX_SEGMENTS);
    let mut nonce = [0; 16];
    nonce[..SALT_LEN].copy_from_slice(salt);
    nonce[SALT_LEN..].copy_from_slice(&((number << 8) | u64::from(last)).to_be_bytes());
    nonce
}

/// The three parts of a segment in a buffer.
struct Part<'b> {
    salt: &'b mut [u8; SALT_LEN],
    data: &'b mut [u8],
    tag: &'b mut [u8; TAG_LEN],
}

/// Cuts a buffer into segments of these plaintext lengths; ends early where it is too short.
fn split<'b>(buffer: &'b mut [u8], lens: &[usize]) -> impl Iterator<Item = Part<'b>> {
    let mut rest = buffer;
    lens.iter().map_while(move |&len| {
        let (salt, after) = std::mem::take(&mut rest).split_first_chunk_mut()?;
        let (data, after) = after.split_at_mut_checked(len)?;
        let (tag, after) = after.split_first_chunk_mut()?;
        rest = after;
        Some(Part { salt, data, tag })
    })
}

/// Bytes from the operating system's generator.
fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "vector_tests.rs"]
mod tests;
