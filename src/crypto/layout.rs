//! Where the segments of a container stand. Arithmetic only, checked, for sizes from hostile headers too.

use std::ops::Range;

use super::container::HEADER_LEN;

/// Bytes stored before the ciphertext of each segment: the salt of its nonce.
pub const SALT_LEN: usize = 8;
/// Bytes stored after the ciphertext of each segment: its EAX tag.
pub const TAG_LEN: usize = 16;
/// What a segment needs beside its plaintext, in bytes.
pub const SEGMENT_OVERHEAD: usize = SALT_LEN + TAG_LEN;

/// The segment size of what we write, in bytes of plaintext.
pub const DEFAULT_SEGMENT_SIZE: u32 = 32 * 1024;
/// The smallest segment size that is read. Segments below it would be mostly overhead.
pub const MIN_SEGMENT_SIZE: u32 = 64;
/// The largest segment size that is read. It bounds what a hostile header can make a reader allocate.
pub const MAX_SEGMENT_SIZE: u32 = 1024 * 1024;

/// The longest container and plaintext, in bytes: what a file can have (`off_t` is signed).
pub const MAX_LEN: u64 = i64::MAX as u64;
/// Segment numbers end here, since seven bytes of the nonce hold them.
pub(super) const MAX_SEGMENTS: u64 = 1 << 56;

const OVERHEAD: u64 = SEGMENT_OVERHEAD as u64;
const HEADER: u64 = HEADER_LEN as u64;

/// Why sizes do not make a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not a power of two between [`MIN_SEGMENT_SIZE`] and [`MAX_SEGMENT_SIZE`].
    #[error("{0} is no segment size: a power of two from {MIN_SEGMENT_SIZE} to {MAX_SEGMENT_SIZE} is")]
    SegmentSize(u32),
    /// A chunk of this many bytes could not be sealed into a file.
    #[error("{0} bytes are too large a chunk")]
    ChunkSize(u64),
    /// Longer than a file can be, or more segments than can be numbered.
    #[error("too long for a container")]
    TooLong,
    /// No plaintext gives a container of this many bytes: something is cut off or added.
    #[error("no container has {0} bytes: it was cut off or added to")]
    ContainerLen(u64),
    /// A segment number at or after the end.
    #[error("the container has no segment {0}")]
    NoSuchSegment(u64),
    /// A range of plaintext that ends before it starts, or after the end of the file.
    #[error("the file has no bytes {start} to {end}")]
    NoSuchRange {
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
    },
}

/// The sizes that place every segment, whatever the length of the whole: known from the first byte on.
///
/// The plaintext is cut into *chunks* of `chunk_size` bytes (all but the last, which may be shorter), each chunk into
/// *segments* of `segment_size` bytes (all but its last one). So the place of chunk *i* depends on *i* alone, and
/// chunks can be sealed to where they belong in any order and in parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    segment_size: u32,
    chunk_size: u64,
}

impl Default for Geometry {
    /// One chunk of any length, in segments of [`DEFAULT_SEGMENT_SIZE`].
    fn default() -> Self {
        Self { segment_size: DEFAULT_SEGMENT_SIZE, chunk_size: 0 }
    }
}

impl Geometry {
    /// Sizes in bytes of plaintext; `chunk_size` 0 means that the whole file is one chunk.
    ///
    /// # Errors
    /// [`LayoutError::SegmentSize`] and [`LayoutError::ChunkSize`].
    pub fn new(segment_size: u32, chunk_size: u64) -> Result<Self, LayoutError> {
        if !segment_size.is_power_of_two() || !(MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(&segment_size) {
            return Err(LayoutError::SegmentSize(segment_size));
        }
        let geometry = Self { segment_size, chunk_size };
        match geometry.sealed_len(chunk_size) {
            Some(len) if len <= MAX_LEN - HEADER => Ok(geometry),
            _ => Err(LayoutError::ChunkSize(chunk_size)),
        }
    }

    /// [`DEFAULT_SEGMENT_SIZE`], and chunks of this many bytes.
    ///
    /// # Errors
    /// [`LayoutError::ChunkSize`].
    pub fn chunks_of(chunk_size: u64) -> Result<Self, LayoutError> {
        Self::new(DEFAULT_SEGMENT_SIZE, chunk_size)
    }

    /// Bytes of plaintext in a whole segment.
    pub const fn segment_size(&self) -> u32 {
        self.segment_size
    }

    /// Bytes of plaintext in a whole chunk; 0: one chunk holds everything.
    pub const fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// Segments of a whole chunk; `None` where there is one chunk only.
    pub const fn segments_per_chunk(&self) -> Option<u64> {
        match self.chunk_size {
            0 => None,
            size => Some(size.div_ceil(self.segment_size as u64)),
        }
    }

    /// Number of the first segment of a chunk.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] where the chunk can't exist: a second one where there is one only, too.
    pub fn first_segment_of(&self, chunk: u64) -> Result<u64, LayoutError> {
        let first = match self.segments_per_chunk() {
            None if chunk == 0 => Some(0),
            None => None,
            Some(segments) => chunk.checked_mul(segments),
        };
        first.filter(|&first| first < MAX_SEGMENTS).ok_or(LayoutError::TooLong)
    }

    /// Where in the container a chunk starts, in bytes.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`], as [`first_segment_of`](Self::first_segment_of).
    pub fn chunk_position(&self, chunk: u64) -> Result<u64, LayoutError> {
        self.segment_position(self.first_segment_of(chunk)?)
    }

    /// Where in the container a segment starts, in bytes. Segments, and chunks, follow each other without gaps.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] where it would start after [`MAX_LEN`].
    pub fn segment_position(&self, segment: u64) -> Result<u64, LayoutError> {
        let overhead = segment.checked_mul(OVERHEAD).ok_or(LayoutError::TooLong)?;
        let position =
            overhead.checked_add(self.segment_start(segment)?).and_then(|at| at.checked_add(HEADER));
        position.filter(|&position| position <= MAX_LEN).ok_or(LayoutError::TooLong)
    }

    /// Where in the plaintext a segment starts, in bytes.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] where it would start after [`MAX_LEN`].
    pub fn segment_start(&self, segment: u64) -> Result<u64, LayoutError> {
        if segment >= MAX_SEGMENTS {
            return Err(LayoutError::TooLong);
        }
        let (chunk, in_chunk) = self.split(segment);
        let start = chunk
            .checked_mul(self.chunk_size)
            .zip(in_chunk.checked_mul(self.segment_size.into()))
            .and_then(|(chunk, segment)| chunk.checked_add(segment));
        start.filter(|&start| start <= MAX_LEN).ok_or(LayoutError::TooLong)
    }

    /// Bytes of plaintext in this segment, unless the file ends in it: less than
    /// [`segment_size`](Self::segment_size) only at the end of a chunk.
    pub fn whole_segment_len(&self, segment: u64) -> usize {
        let size = u64::from(self.segment_size);
        let len = match self.segments_per_chunk() {
            None => size,
            Some(_) => size.min(self.chunk_size - self.split(segment).1 * size),
        };
        len as usize // at most MAX_SEGMENT_SIZE
    }

    /// (chunk, number within the chunk) of a segment.
    fn split(&self, segment: u64) -> (u64, u64) {
        match self.segments_per_chunk() {
            None => (0, segment),
            Some(segments) => (segment / segments, segment % segments),
        }
    }

    /// Sealed length of so many bytes of plaintext from the start of a chunk; 0 for 0. `None` on overflow.
    fn sealed_len(&self, plaintext: u64) -> Option<u64> {
        let segments = plaintext.div_ceil(self.segment_size.into());
        segments.checked_mul(OVERHEAD)?.checked_add(plaintext)
    }
}

/// One segment of a container of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 0, through all chunks.
    pub number: u64,
    /// Where it starts in the container, in bytes.
    pub position: u64,
    /// Where it starts in the plaintext, in bytes.
    pub start: u64,
    /// Bytes of plaintext in it. 0 only in an empty file.
    pub len: usize,
    /// Whether the file ends with it.
    pub last: bool,
}

impl Segment {
    /// Bytes that it takes in the container.
    pub const fn sealed_len(&self) -> usize {
        self.len + SEGMENT_OVERHEAD
    }
}

/// The segments that a range of plaintext touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Their numbers. Empty for an empty range.
    pub segments: Range<u64>,
    /// Where they stand in the container, in bytes: what has to be read.
    pub container: Range<u64>,
    /// Bytes to leave out at the start of the opened plaintext; what follows, up to the length asked for, is the range.
    pub skip: usize,
}

/// The geometry of a container and its length: places every segment, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    plaintext_len: u64,
    segments: u64,
}

impl Layout {
    /// Layout of a container that holds so many bytes of plaintext.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`].
    pub fn of_plaintext(geometry: Geometry, plaintext_len: u64) -> Result<Self, LayoutError> {
        let (chunks, rest) = match geometry.chunk_size {
            0 => (0, plaintext_len),
            size => (plaintext_len / size, plaintext_len % size),
        };
        let segments = geometry
            .segments_per_chunk()
            .unwrap_or(0)
            .checked_mul(chunks)
            .and_then(|segments| segments.checked_add(rest.div_ceil(geometry.segment_size.into())))
            .ok_or(LayoutError::TooLong)?
            .max(1);
        let len = segments.checked_mul(OVERHEAD).and_then(|len| len.checked_add(plaintext_len));
        match len.and_then(|len| len.checked_add(HEADER)) {
            Some(len) if len <= MAX_LEN && segments <= MAX_SEGMENTS => {
                Ok(Self { geometry, plaintext_len, segments })
            }
            _ => Err(LayoutError::TooLong),
        }
    }

    /// Layout of a container of so many bytes, header included. Each length has at most one.
    ///
    /// # Errors
    /// [`LayoutError::ContainerLen`] where no plaintext gives that length; [`LayoutError::TooLong`].
    pub fn of_container(geometry: Geometry, container_len: u64) -> Result<Self, LayoutError> {
        let wrong = LayoutError::ContainerLen(container_len);
        let body = container_len.checked_sub(HEADER).filter(|&body| body >= OVERHEAD).ok_or(wrong)?;
        let whole = u64::from(geometry.segment_size) + OVERHEAD;
        let (chunks, rest) = match geometry.sealed_len(geometry.chunk_size) {
            Some(len) if len > 0 => (body / len, body % len),
            _ => (0, body),
        };
        // A segment that isn't whole has some plaintext, but for the only one of an empty file.
        let (whole_segments, tail) = (rest / whole, rest % whole);
        let least = if body == OVERHEAD { OVERHEAD } else { OVERHEAD + 1 };
        if tail > 0 && tail < least {
            return Err(wrong);
        }
        let before = geometry.segments_per_chunk().unwrap_or(0) * chunks;
        let segments = before + whole_segments + u64::from(tail > 0);
        let layout = Self::of_plaintext(geometry, body - segments * OVERHEAD)?;
        debug_assert_eq!((layout.segments, layout.container_len()), (segments, container_len));
        Ok(layout)
    }

    /// The sizes it was made from.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Bytes of plaintext.
    pub const fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Bytes of the container, header included.
    pub const fn container_len(&self) -> u64 {
        HEADER + self.plaintext_len + self.segments * OVERHEAD
    }

    /// Number of segments: at least 1.
    pub const fn segments(&self) -> u64 {
        self.segments
    }

    /// The segment of this number.
    ///
    /// # Errors
    /// [`LayoutError::NoSuchSegment`].
    pub fn segment(&self, number: u64) -> Result<Segment, LayoutError> {
        if number >= self.segments {
            return Err(LayoutError::NoSuchSegment(number));
        }
        let (start, position) =
            (self.geometry.segment_start(number)?, self.geometry.segment_position(number)?);
        let whole = self.geometry.whole_segment_len(number);
        let len = usize::try_from(self.plaintext_len - start).map_or(whole, |left| left.min(whole));
        Ok(Segment { number, position, start, len, last: number + 1 == self.segments })
    }

    /// Where these segments stand in the container, in bytes.
    ///
    /// # Errors
    /// [`LayoutError::NoSuchSegment`] where one of them is not there.
    pub fn container_range(&self, segments: Range<u64>) -> Result<Range<u64>, LayoutError> {
        if segments.is_empty() {
            let at = self.geometry.segment_position(segments.start)?;
            return Ok(at..at);
        }
        let last = self.segment(segments.end - 1)?;
        Ok(self.segment(segments.start)?.position..last.position + last.sealed_len() as u64)
    }

    /// The segments to open for a range of plaintext, in bytes, its end not included.
    ///
    /// An empty range touches none.
    ///
    /// # Errors
    /// [`LayoutError::NoSuchRange`] where the file does not have all of it.
    pub fn touched(&self, range: Range<u64>) -> Result<Touched, LayoutError> {
        let Range { start, end } = range;
        if start > end || end > self.plaintext_len {
            return Err(LayoutError::NoSuchRange { start, end });
        }
        if start == end {
            return Ok(Touched { segments: 0..0, container: HEADER..HEADER, skip: 0 });
        }
        let segments = self.segment_at(start)..self.segment_at(end - 1) + 1;
        let skip = start - self.geometry.segment_start(segments.start)?;
        Ok(Touched { container: self.container_range(segments.clone())?, segments, skip: skip as usize })
    }

    /// Number of the segment that holds this byte of plaintext.
    fn segment_at(&self, offset: u64) -> u64 {
        let size = u64::from(self.geometry.segment_size);
        match self.geometry.segments_per_chunk() {
            None => offset / size,
            Some(segments) => {
                let chunk_size = self.geometry.chunk_size;
                offset / chunk_size * segments + offset % chunk_size / size
            }
        }
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
