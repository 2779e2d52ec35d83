use proptest::prelude::*;

use super::*;

fn geometry(segment_size: u32, chunk_size: u64) -> Geometry {
    Geometry::new(segment_size, chunk_size).unwrap()
}

/// Segment by segment, without any of the arithmetic under test: (start, length) of each.
fn by_walking(geometry: Geometry, plaintext_len: u64) -> Vec<(u64, u64)> {
    let mut segments = Vec::new();
    let (mut at, mut in_chunk) = (0, 0);
    while at < plaintext_len || segments.is_empty() {
        let mut len = u64::from(geometry.segment_size()).min(plaintext_len - at);
        if geometry.chunk_size() > 0 {
            len = len.min(geometry.chunk_size() - in_chunk);
            in_chunk = (in_chunk + len) % geometry.chunk_size();
        }
        segments.push((at, len));
        at += len;
    }
    segments
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    (6_u32..=8, prop_oneof![Just(0), 1_u64..=700]).prop_map(|(log, chunk)| geometry(1 << log, chunk))
}

proptest! {
    #[test]
    fn every_segment_stands_where_walking_finds_it(geometry in any_geometry(), len in 0_u64..3000) {
        let layout = Layout::of_plaintext(geometry, len).unwrap();
        let walked = by_walking(geometry, len);
        prop_assert_eq!(layout.segments(), walked.len() as u64);
        let mut position = HEADER;
        for (number, (start, len)) in walked.iter().copied().enumerate() {
            let segment = layout.segment(number as u64).unwrap();
            prop_assert_eq!((segment.start, segment.len as u64, segment.position), (start, len, position));
            prop_assert_eq!(segment.last, number + 1 == walked.len());
            prop_assert!(segment.last || segment.len == geometry.whole_segment_len(number as u64));
            position += segment.sealed_len() as u64;
        }
        prop_assert_eq!(layout.container_len(), position);
        prop_assert_eq!(layout.segment(layout.segments()), Err(LayoutError::NoSuchSegment(layout.segments())));
    }

    #[test]
    fn a_container_length_says_the_plaintext_length(geometry in any_geometry(), len in 0_u64..3000) {
        let layout = Layout::of_plaintext(geometry, len).unwrap();
        prop_assert_eq!(Layout::of_container(geometry, layout.container_len()), Ok(layout));
    }

    #[test]
    fn a_length_that_no_plaintext_gives_is_refused(geometry in any_geometry(), container in 0_u64..4000) {
        let possible = (0..=container).any(|len| {
            Layout::of_plaintext(geometry, len).unwrap().container_len() == container
        });
        prop_assert_eq!(Layout::of_container(geometry, container).is_ok(), possible);
    }

    #[test]
    fn a_range_touches_the_segments_that_overlap_it(
        geometry in any_geometry(), len in 0_u64..3000, a in 0_u64..3000, b in 0_u64..3000,
    ) {
        let (start, end) = (a.min(b).min(len), a.max(b).min(len));
        let layout = Layout::of_plaintext(geometry, len).unwrap();
        let touched = layout.touched(start..end).unwrap();
        let overlap = |&(_, (at, len)): &(usize, (u64, u64))| at < end && at + len > start && start < end;
        let expected: Vec<u64> =
            by_walking(geometry, len).into_iter().enumerate().filter(overlap).map(|(n, _)| n as u64).collect();
        prop_assert_eq!(touched.segments.clone().collect::<Vec<_>>(), expected.clone());
        if let Some(&first) = expected.first() {
            let first = layout.segment(first).unwrap();
            prop_assert_eq!(touched.skip as u64, start - first.start);
            prop_assert_eq!(touched.container, layout.container_range(touched.segments).unwrap());
        }
    }

    #[test]
    fn no_header_and_no_length_overflows(
        log in 0_u32..32, chunk: u64, len: u64, number: u64, end: u64,
    ) {
        // Debug builds panic on overflow, so that returning at all is what is tested.
        let Ok(geometry) = Geometry::new(1_u32 << log, chunk) else { return Ok(()) };
        let _ = (geometry.chunk_position(number), geometry.segment_position(number), geometry.segment_start(number));
        let layouts = [Layout::of_plaintext(geometry, len), Layout::of_container(geometry, len)];
        for layout in layouts.into_iter().flatten() {
            prop_assert!(layout.container_len() <= MAX_LEN);
            let number = number % layout.segments();
            let segment = layout.segment(number).unwrap();
            prop_assert!(segment.len <= MAX_SEGMENT_SIZE as usize);
            prop_assert!(layout.segment(layout.segments() - 1).unwrap().last);
            let _ = layout.touched(len.min(end)..end);
            prop_assert!(layout.touched(0..layout.plaintext_len()).is_ok());
        }
    }
}

#[test]
fn chunks_have_their_places_before_the_length_is_known() {
    let geometry = geometry(64, 100);
    // A chunk of 100 bytes is a segment of 64 and one of 36.
    assert_eq!(geometry.segments_per_chunk(), Some(2));
    assert_eq!(geometry.first_segment_of(3), Ok(6));
    assert_eq!(geometry.chunk_position(0), Ok(48));
    assert_eq!(geometry.chunk_position(3), Ok(48 + 3 * (100 + 2 * 24)));
    assert_eq!((geometry.whole_segment_len(6), geometry.whole_segment_len(7)), (64, 36));
    let whole = Geometry::default();
    assert_eq!(whole.chunk_position(0), Ok(48));
    assert_eq!(whole.chunk_position(1), Err(LayoutError::TooLong), "there is one chunk only");
}

#[test]
fn the_edges_of_what_a_file_can_hold() {
    let geometry = Geometry::default();
    assert_eq!(Layout::of_plaintext(geometry, 0).unwrap().container_len(), 48 + 24);
    assert_eq!(Layout::of_plaintext(geometry, 32_768).unwrap().segments(), 1);
    assert_eq!(Layout::of_plaintext(geometry, 32_769).unwrap().segments(), 2);
    assert_eq!(Layout::of_plaintext(geometry, MAX_LEN), Err(LayoutError::TooLong));
    assert_eq!(Layout::of_container(geometry, u64::MAX), Err(LayoutError::TooLong));
    for len in [0, 47, 48, 71] {
        assert_eq!(Layout::of_container(geometry, len), Err(LayoutError::ContainerLen(len)));
    }
    assert_eq!(Geometry::new(64, u64::MAX), Err(LayoutError::ChunkSize(u64::MAX)));
    assert_eq!(Geometry::new(96, 0), Err(LayoutError::SegmentSize(96)));
    // Segments of one byte, and more of them than seven bytes can number.
    let tiny = self::geometry(64, 1);
    assert_eq!(Layout::of_plaintext(tiny, MAX_SEGMENTS + 1), Err(LayoutError::TooLong));
    let layout = Layout::of_plaintext(geometry, 10).unwrap();
    assert_eq!(layout.touched(5..11), Err(LayoutError::NoSuchRange { start: 5, end: 11 }));
    assert_eq!(layout.touched(10..10).unwrap().segments, 0..0);
}
