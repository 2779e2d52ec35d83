//! Opening: container bytes in, verified plaintext out. The caller reads them, or gives a `Read + Seek`.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::bytes::KeyId;
use super::container::{HEADER_LEN, Header, HeaderError};
use super::eax_lanes::LANES;
use super::file_key::FileKey;
use super::keyring::Keyring;
use super::layout::{Layout, LayoutError};

/// Why a container, or a part of it, could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its header is none of ours.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It was sealed under a key that is not in the keyring.
    #[error("sealed under the key with id {0}, which is neither ENCRYPTION_KEY nor in ENCRYPTION_KEY_OLD")]
    UnknownKey(KeyId),
    /// It has a length that no container has, or not what was asked for.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The bytes given are not whole segments.
    #[error("the buffer does not hold whole segments")]
    Segments,
    /// This segment, or the header, is not what was sealed under this key at this place of this file; or the container
    /// was cut off or added to.
    #[error("segment {segment} is damaged or has been tampered with")]
    Tampered {
        /// Its number. The first, where there are several among those opened together.
        segment: u64,
    },
}

/// Opens any part of one container. Immutable: any number of threads may open parts of it at the same time.
///
/// No plaintext leaves before it has been verified. What is verified by opening a segment is that this segment of this
/// file had this content at this place. That the file ends where the container does is known once its **last**
/// segment has been opened ([`verify_end`](Self::verify_end)); whoever promises a length, as in a `Content-Length`, opens it first.
///
/// ```
/// # use smart_file_transfer::crypto::{Keyring, Opener, seal_to_vec};
/// # let keyring = Keyring::new("DevKey1234567890", [""; 0])?;
/// # let file = seal_to_vec(&keyring, &[7; 200_000])?;
/// let opener = Opener::new(&file, file.len() as u64, &keyring)?;
/// let touched = opener.layout().touched(100_000..150_000)?;
/// let mut segments = file[touched.container.start as usize..touched.container.end as usize].to_vec();
/// let plaintext = opener.open_segments(touched.segments.start, &mut segments)?;
/// assert_eq!(plaintext[touched.skip..][..50_000], [7; 50_000]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Opener {
    key: Arc<FileKey>,
    layout: Layout,
}

impl Opener {
    /// Takes the first bytes of a container (at least [`HEADER_LEN`]) and its length in bytes.
    ///
    /// # Errors
    /// [`OpenError::Header`], [`OpenError::UnknownKey`], [`OpenError::Layout`]. Success says nothing about whether the
    /// header is genuine: opening a segment does.
    pub fn new(header: &[u8], container_len: u64, keyring: &Keyring) -> Result<Self, OpenError> {
        let header = Header::parse(header)?;
        let layout = Layout::of_container(header.geometry, container_len)?;
        let key = FileKey::for_header(header, keyring).ok_or(OpenError::UnknownKey(header.key_id))?;
        Ok(Self { key: Arc::new(key), layout })
    }

    /// The header, not verified until a segment has been opened.
    pub fn header(&self) -> &Header {
        self.key.header()
    }

    /// Where everything stands.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Verifies consecutive segments, `segments` being their bytes in the container and `first` the number of the first,
    /// and opens them in place. Returns their plaintext, which stands together at the start of `segments`.
    ///
    /// [`LANES`] segments at a time are fastest. All of them are verified before any is decrypted.
    ///
    /// # Errors
    /// [`OpenError::Segments`], [`OpenError::Layout`] and [`OpenError::Tampered`]. `segments` then is as it was.
    pub fn open_segments<'b>(&self, first: u64, segments: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
        self.key.open_segments(&self.layout, first, segments)
    }

    /// Verifies that the file ends where this container does: `segment` has the bytes of the last segment.
    ///
    /// They stand at [`Segment::position`](super::layout::Segment::position) of segment `layout().segments() - 1`, to the
    /// end. Returns their plaintext, in place.
    ///
    /// # Errors
    /// As [`open_segments`](Self::open_segments).
    pub fn verify_end<'b>(&self, segment: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
        let last = self.layout.segment(self.layout.segments() - 1)?;
        if segment.len() != last.sealed_len() {
            return Err(OpenError::Segments);
        }
        self.open_segments(last.number, segment)
    }
}

/// Reads the plaintext of a container from start to end, in flat memory ([`LANES`] segments at a time).
///
/// The end is verified when the stream is made, so that a container that was cut off gives nothing at all. Later
/// tampering comes as an [`io::Error`] of kind `InvalidData` with an [`OpenError`] in it, after which there is no more.
#[derive(Debug)]
pub struct OpenStream<R> {
    opener: Opener,
    inner: R,
    /// Number of the next segment to read.
    next: u64,
    buffer: Vec<u8>,
    /// Plaintext in `buffer` that has not been read.
    ready: std::ops::Range<usize>,
}

impl<R: Read + Seek> OpenStream<R> {
    /// Takes a container that starts at the start of `inner` and ends at its end.
    ///
    /// # Errors
    /// Those of `inner`, and [`OpenError`] as `InvalidData`.
    pub fn new(mut inner: R, keyring: &Keyring) -> io::Result<Self> {
        let len = inner.seek(SeekFrom::End(0))?;
        inner.rewind()?;
        let mut header = Vec::with_capacity(HEADER_LEN);
        inner.by_ref().take(HEADER_LEN as u64).read_to_end(&mut header)?;
        let opener = Opener::new(&header, len, keyring).map_err(invalid)?;

        let last = opener.layout.segment(opener.layout.segments() - 1).map_err(invalid)?;
        let mut buffer = vec![0; last.sealed_len()];
        inner.seek(SeekFrom::Start(last.position))?;
        inner.read_exact(&mut buffer)?;
        opener.verify_end(&mut buffer).map_err(invalid)?;
        inner.seek(SeekFrom::Start(HEADER_LEN as u64))?;
        Ok(Self { opener, inner, next: 0, buffer, ready: 0..0 })
    }

    /// What opens it.
    pub const fn opener(&self) -> &Opener {
        &self.opener
    }

    fn fill(&mut self) -> io::Result<()> {
        let layout = &self.opener.layout;
        let segments = self.next..layout.segments().min(self.next + LANES as u64);
        let place = layout.container_range(segments.clone()).map_err(invalid)?;
        self.buffer.resize((place.end - place.start) as usize, 0);
        self.inner.read_exact(&mut self.buffer)?;
        let plaintext = self.opener.open_segments(self.next, &mut self.buffer).map_err(invalid)?;
        self.ready = 0..plaintext.len();
        self.next = segments.end;
        Ok(())
    }
}

impl<R: Read + Seek> Read for OpenStream<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ended = self.next >= self.opener.layout.segments();
        if self.ready.is_empty() && !ended && !out.is_empty() {
            self.fill().inspect_err(|_| {
                // Whoever reads on after an error must not get what follows the damage.
                self.next = u64::MAX;
            })?;
        }
        let len = out.len().min(self.ready.len());
        out[..len].copy_from_slice(&self.buffer[self.ready.start..][..len]);
        self.ready.start += len;
        Ok(len)
    }
}

/// Opens something small that [`seal_to_vec`](super::seal::seal_to_vec) sealed, or any container held in memory.
///
/// # Errors
/// [`OpenError`].
pub fn open_to_vec(keyring: &Keyring, container: &[u8]) -> Result<Vec<u8>, OpenError> {
    let opener = Opener::new(container, container.len() as u64, keyring)?;
    let mut segments = container.get(HEADER_LEN..).unwrap_or_default().to_vec();
    let len = opener.open_segments(0, &mut segments)?.len();
    segments.truncate(len);
    Ok(segments)
}

fn invalid(error: impl Into<OpenError>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.into())
}
