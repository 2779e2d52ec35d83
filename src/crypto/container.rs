//! The container: its bytes, and its header.
//!
//! A container is a [`Header`] of 48 bytes and then the segments of the file, one after the other:
//!
//! ```text
//! container = header (48) | segment 0 | segment 1 | … | last segment
//! segment   = salt (8) | ciphertext (as long as its plaintext) | tag (16)
//! ```
//!
//! Each segment is an AES-128-EAX message of its own, with
//!
//! | input | value | why |
//! | --- | --- | --- |
//! | key | HKDF-SHA256 of `ENCRYPTION_KEY`, salt = file nonce, info = `smart-file-transfer container v1 file key`, 16 bytes | no two files share a key, so that their nonces can't collide, whatever their number |
//! | associated data | the 48 bytes of the header | a changed header, or that of another file, fits no tag |
//! | nonce (16) | salt (8) ‖ segment number (7, big-endian) ‖ 1 if the file ends with this segment, else 0 (1) | below |
//!
//! The **segment number** counts through all chunks. With the sizes of the header it gives chunk and place, so a segment
//! at any other place, twice, or left out, does not fit. The **last-of-file flag** is known only when the end of the upload
//! is seen, which is why it is not in the header: a container that was cut off at a segment's end, or added to, has a
//! segment whose flag is wrong. The **salt** is random, drawn anew each time that a segment is sealed. It makes it harmless
//! to seal a segment twice, as happens when a client that was cut off sends a chunk again and it is not the same
//! any more: without it, the same nonce would cover two plaintexts, and whoever saw both states of the disk could subtract
//! them. It also lets the last segment be sealed again when it turns out late that it is the last.
//!
//! An empty file has one segment, empty and last. Otherwise no segment is empty. See [`layout`](super::layout) for
//! the positions and `docs/CONTAINER.md` for what is detected, what isn't, and test vectors.

use super::bytes::{FileNonce, KeyId};
use super::layout::{Geometry, LayoutError};

/// Length in bytes of a header.
pub const HEADER_LEN: usize = 48;

/// The first bytes of a container: not text (the first one), our name, and a line feed that a conversion of line
/// ends would damage.
pub const MAGIC: [u8; 8] = *b"\x89SFTEAX\n";

/// The only version there is.
pub const VERSION: u8 = 1;

/// AES-128-EAX with keys by HKDF-SHA256: the only algorithm there is.
pub const AES_128_EAX: u8 = 1;

/// Why bytes are no header of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than [`HEADER_LEN`] bytes.
    #[error("a header has {HEADER_LEN} bytes, not {0}")]
    TooShort(usize),
    /// It does not begin with [`MAGIC`].
    #[error("not a container")]
    Magic,
    /// A version that is not known here.
    #[error("container version {0} is not known")]
    Version(u8),
    /// An algorithm that is not known here.
    #[error("container algorithm {0} is not known")]
    Algorithm(u8),
    /// Bytes that are zero in this version are not.
    #[error("reserved bytes of the header are in use")]
    Reserved,
    /// Its sizes make no container.
    #[error(transparent)]
    Sizes(#[from] LayoutError),
}

/// The header of a container. All numbers are big-endian.
///
/// | bytes | field | why |
/// | --- | --- | --- |
/// | 0–7 | magic `89 53 46 54 45 41 58 0A` | tells a container from a plain file and from the older format |
/// | 8 | version, 1 | a reader refuses what it does not know rather than guess |
/// | 9 | algorithm, 1 = AES-128-EAX with HKDF-SHA256 | so that another cipher needs no other layout |
/// | 10–11 | zero | keeps the numbers aligned; refused if not zero, so that it can be given a meaning later |
/// | 12–15 | segment size *S* in bytes of plaintext, a power of two from 64 to 1,048,576 | places segments; bounded, since it is read before it can be verified |
/// | 16–23 | key id | finds the key among old ones without trying, and names it when it is missing |
/// | 24–39 | file nonce, random | makes the file's key its own |
/// | 40–47 | chunk size *C* in bytes of plaintext, 0 = one chunk | places chunks, in whatever order they arrive |
///
/// The whole header is the associated data of every segment. It holds no length: that of an upload may be known
/// only at its end. The container's own length gives it, and the last-of-file flag vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The key that the file's key comes of.
    pub key_id: KeyId,
    /// Makes the file's key its own.
    pub file_nonce: FileNonce,
    /// Segment size and chunk size.
    pub geometry: Geometry,
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[9] = AES_128_EAX;
        bytes[12..16].copy_from_slice(&self.geometry.segment_size().to_be_bytes());
        bytes[16..24].copy_from_slice(self.key_id.as_bytes());
        bytes[24..40].copy_from_slice(self.file_nonce.as_bytes());
        bytes[40..].copy_from_slice(&self.geometry.chunk_size().to_be_bytes());
        bytes
    }

    /// Reads the header from the first bytes of a container; what follows it is not looked at.
    ///
    /// Says nothing about whether it is genuine: the first segment that is opened does.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn parse(container: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = container.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::TooShort(container.len()));
        };
        if !Self::begins(bytes) {
            return Err(HeaderError::Magic);
        }
        if bytes[8] != VERSION {
            return Err(HeaderError::Version(bytes[8]));
        }
        if bytes[9] != AES_128_EAX {
            return Err(HeaderError::Algorithm(bytes[9]));
        }
        if bytes[10..12] != [0, 0] {
            return Err(HeaderError::Reserved);
        }
        let segment_size = u32::from_be_bytes(array(bytes, 12));
        let chunk_size = u64::from_be_bytes(array(bytes, 40));
        Ok(Self {
            key_id: KeyId::from_bytes(array(bytes, 16)),
            file_nonce: FileNonce::from_bytes(array(bytes, 24)),
            geometry: Geometry::new(segment_size, chunk_size)?,
        })
    }

    /// Whether these bytes begin as a container does. The older format, whose first bytes are random, does so
    /// once in 2^64.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }
}

/// `N` bytes of the header from `at`.
fn array<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            key_id: KeyId::from_bytes([0xA0; 8]),
            file_nonce: FileNonce::from_bytes([0xB0; 16]),
            geometry: Geometry::new(4096, 5_000_000).unwrap(),
        }
    }

    #[test]
    fn a_header_comes_back_and_is_laid_out_as_documented() {
        let bytes = header().encode();
        assert_eq!(Header::parse(&bytes), Ok(header()));
        let expected = [
            &b"\x89SFTEAX\n"[..],
            &[1, 1, 0, 0],
            &[0, 0, 0x10, 0],
            &[0xA0; 8],
            &[0xB0; 16],
            &[0, 0, 0, 0, 0, 0x4C, 0x4B, 0x40],
        ];
        assert_eq!(bytes[..], expected.concat());
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let changed = |at: usize, to: u8| {
            let mut bytes = header().encode();
            bytes[at] = to;
            Header::parse(&bytes).unwrap_err()
        };
        assert_eq!(Header::parse(&header().encode()[..47]), Err(HeaderError::TooShort(47)));
        assert_eq!(changed(0, b'P'), HeaderError::Magic);
        assert_eq!(changed(8, 2), HeaderError::Version(2));
        assert_eq!(changed(9, 0), HeaderError::Algorithm(0));
        assert_eq!(changed(11, 1), HeaderError::Reserved);
        assert_eq!(changed(15, 1), HeaderError::Sizes(LayoutError::SegmentSize(4097)));
        assert_eq!(changed(12, 0x80), HeaderError::Sizes(LayoutError::SegmentSize(0x8000_1000)));
        assert!(matches!(changed(40, 0xFF), HeaderError::Sizes(LayoutError::ChunkSize(_))));
    }
}
