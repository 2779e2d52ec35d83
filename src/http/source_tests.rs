use std::future::poll_fn;
use std::io::Write as _;

use super::*;
use crate::crypto::{Ends, FileKey, Geometry, Keyring, Sealer};

const LENGTH: usize = (5 << 20) + 4_321;

fn content() -> Vec<u8> {
    (0..LENGTH as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn stored(bytes: &[u8]) -> OpenFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    OpenFile::at(file.path()).unwrap()
}

fn keyring() -> Keyring {
    Keyring::new("DevKey1234567890", [""; 0]).unwrap()
}

fn container(content: &[u8], geometry: Geometry) -> Vec<u8> {
    let key = Arc::new(FileKey::create(&keyring(), geometry).unwrap());
    let mut container = key.header_bytes().to_vec();
    let mut sealer = Sealer::chunk(key, 0).unwrap();
    let mut input = content;
    while let Some(sealed) = sealer.push(&mut input).unwrap() {
        container.extend_from_slice(sealed.bytes);
    }
    container.append(&mut sealer.finish(Ends::File).unwrap().bytes);
    container
}

fn opener(container: &[u8]) -> Opener {
    let file = Arc::new(SealedFile::open(stored(container), Some(&keyring()), None).unwrap());
    Opener { file, opening: VecDeque::new(), opens_here: true }
}

/// Reads a range to its end, or up to an error. `is_crowded` is asked at each poll.
async fn read(
    source: &mut Source,
    mut range: Range<u64>,
    mut is_crowded: impl FnMut() -> bool,
) -> (Vec<u8>, io::Result<()>) {
    let mut whole = Vec::new();
    while !range.is_empty() {
        match poll_fn(|cx| source.poll_next(cx, range.clone(), is_crowded())).await {
            Ok(bytes) => {
                range.start += bytes.len() as u64;
                whole.extend_from_slice(&bytes);
            }
            Err(error) => return (whole, Err(error)),
        }
        if !is_crowded() && !range.is_empty() {
            source.read_ahead(range.clone());
        }
    }
    (whole, Ok(()))
}

fn ranges() -> Vec<Range<u64>> {
    const SEGMENT: u64 = 32 << 10;
    let (end, piece) = (LENGTH as u64, PIECE as u64);
    vec![
        0..end,
        0..1,
        end - 1..end,
        1..end - 1,
        SEGMENT - 1..SEGMENT + 1,
        piece - 1..3 * piece + 1,
        piece + 5..2 * piece + SEGMENT + 7,
        7 * SEGMENT + 11..end - 17,
    ]
}

fn sources(content: &[u8], container: &[u8]) -> [Source; 3] {
    let plain = Source::Plain(Reader { file: Arc::new(stored(content)), reading: None });
    let by_blocking_threads = Opener { opens_here: false, ..opener(container) };
    [plain, Source::Sealed(opener(container)), Source::Sealed(by_blocking_threads)]
}

#[tokio::test]
async fn every_range_comes_whole_however_many_are_sent_at_once() {
    let content = content();
    let container = container(&content, Geometry::default());
    for range in ranges() {
        let expected = &content[range.start as usize..range.end as usize];
        for rhythm in [1, 2, 3, 5, u32::MAX] {
            for (place, mut source) in sources(&content, &container).into_iter().enumerate() {
                let mut polls = 0_u32;
                let is_crowded = || {
                    polls += 1;
                    polls.is_multiple_of(rhythm)
                };
                let (read, end) = read(&mut source, range.clone(), is_crowded).await;
                end.unwrap();
                assert!(read == expected, "source {place}, {range:?}, every {rhythm} polls crowded");
            }
        }
    }
}

#[tokio::test]
async fn two_threads_open_what_is_in_the_page_cache() {
    let content = content();
    let mut opener = opener(&container(&content, Geometry::default()));
    let piece = PIECE as u64;
    let end = LENGTH as u64;
    let next = async |opener: &mut Opener, start: u64| {
        poll_fn(|cx| opener.poll_next(cx, start..end, false)).await.unwrap().len() as u64
    };
    let begins = |opener: &Opener| opener.opening.iter().map(|(piece, _)| piece.start).collect::<Vec<_>>();
    assert_eq!(next(&mut opener, 0).await, piece);
    assert_eq!(begins(&opener), [piece], "the first piece was opened here, the second is being opened");
    opener.read_ahead(piece..end);
    assert_eq!(begins(&opener), [piece]);
    assert_eq!(next(&mut opener, piece).await, piece);
    assert!(begins(&opener).is_empty());
    opener.read_ahead(2 * piece..end);
    assert_eq!(begins(&opener), [3 * piece], "the third piece is for this thread");
    assert_eq!(next(&mut opener, 2 * piece).await, piece);
    assert_eq!(begins(&opener), [3 * piece]);
    assert!(opener.opens_here);
}

#[tokio::test]
async fn segments_of_unusual_size_are_left_to_blocking_threads() {
    let content = content();
    let geometry = Geometry::new(1 << 20, 8 << 20).unwrap();
    let mut source = Source::Sealed(opener(&container(&content, geometry)));
    let (whole, end) = read(&mut source, 0..LENGTH as u64, || false).await;
    end.unwrap();
    assert!(whole == content);
    let Source::Sealed(opener) = source else { unreachable!() };
    assert!(!opener.opens_here);
}

#[tokio::test]
async fn damage_ends_it_and_nothing_wrong_is_given() {
    let content = content();
    let whole = container(&content, Geometry::default());
    // In a piece that this thread opens, and in one that another opens.
    for piece in [4, 5] {
        for opens_here in [true, false] {
            let mut damaged = whole.clone();
            damaged[piece * PIECE + 100_000] ^= 1;
            let opener = Opener { opens_here, ..opener(&damaged) };
            let (read, end) = read(&mut Source::Sealed(opener), 0..LENGTH as u64, || false).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(read.len(), piece * PIECE);
            assert!(read == content[..piece * PIECE]);
        }
    }
}

#[tokio::test]
async fn a_file_that_has_become_shorter_is_an_error() {
    let content = content();
    let mut source = Source::Plain(Reader { file: Arc::new(stored(&content)), reading: None });
    let (read, end) = read(&mut source, 0..LENGTH as u64 + 1, || false).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(read == content);
}
