//! Which bytes of a file a request asks for (RFC 9110 §14). Pure.

use std::ops::Range;

/// More ranges than this in one request are taken for an attack, and the header is ignored (RFC 9110 §14.2).
const MOST: usize = 64;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Everything: nothing, or nothing that is understood, was asked for.
    Whole,
    /// These parts, in the order asked for; none is empty and no two touch. One: `Content-Range`; several: `multipart/byteranges`.
    Parts(Vec<Range<u64>>),
    /// Nothing of what was asked for exists: 416.
    Unsatisfiable,
}

/// Selects from a file of `length` bytes what the `Range` header asks for.
pub(super) fn select(header: Option<&str>, length: u64) -> Selection {
    let Some(header) = header else { return Selection::Whole };
    let Some((unit, set)) = header.split_once('=') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut asked = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        asked += 1;
        if asked > MOST {
            return Selection::Whole;
        }
        match part(spec, length) {
            Err(()) => return Selection::Whole,
            Ok(None) => {}
            Ok(Some(part)) => add(&mut parts, part),
        }
    }
    match (asked, parts.is_empty()) {
        (0, _) => Selection::Whole,
        (_, true) => Selection::Unsatisfiable,
        (_, false) => Selection::Parts(parts),
    }
}

/// One range: `0-499`, `500-`, `-500`. `None`: it lies outside the file. `Err`: it is no range.
fn part(spec: &str, length: u64) -> Result<Option<Range<u64>>, ()> {
    let (first, last) = spec.split_once('-').ok_or(())?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A position beyond any file is a valid one.
        if digits { Ok(text.parse().unwrap_or(u64::MAX)) } else { Err(()) }
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(());
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Ok((range.start < range.end).then_some(range))
}

/// Adds a part, joined with those that it overlaps or touches (RFC 9110 §15.3.7.2 lets a server do so): the answer is
/// never longer than the file.
fn add(parts: &mut Vec<Range<u64>>, mut new: Range<u64>) {
    let mut place = parts.len();
    let mut index = 0;
    while index < parts.len() {
        let old = &parts[index];
        if new.start <= old.end && old.start <= new.end {
            new = new.start.min(old.start)..new.end.max(old.end);
            place = place.min(index);
            parts.remove(index);
            index = 0;
        } else {
            index += 1;
        }
    }
    parts.insert(place.min(parts.len()), new);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_at_every_edge() {
        use Selection::{Parts, Unsatisfiable, Whole};
        let one = |range: Range<u64>| Parts(vec![range]);
        for (header, length, expected) in [
            (None, 10, Whole),
            (Some("bytes=0-0"), 10, one(0..1)),
            (Some("bytes=9-9"), 10, one(9..10)),
            (Some("bytes=0-9"), 10, one(0..10)),
            (Some("bytes=0-"), 10, one(0..10)),
            (Some("bytes=9-"), 10, one(9..10)),
            (Some("bytes=10-"), 10, Unsatisfiable),
            (Some("bytes=10-20"), 10, Unsatisfiable),
            (Some("bytes=5-99"), 10, one(5..10)),
            (Some("bytes=0-18446744073709551615"), 10, one(0..10)),
            (Some("bytes=5-99999999999999999999999"), 10, one(5..10)),
            (Some("bytes=99999999999999999999999-"), 10, Unsatisfiable),
            (Some("bytes=-1"), 10, one(9..10)),
            (Some("bytes=-10"), 10, one(0..10)),
            (Some("bytes=-11"), 10, one(0..10)),
            (Some("bytes=-0"), 10, Unsatisfiable),
            (Some("bytes=0-"), 0, Unsatisfiable),
            (Some("bytes=-1"), 0, Unsatisfiable),
            (Some("bytes=0-0"), 0, Unsatisfiable),
            (Some("Bytes = 1-2"), 10, one(1..3)),
            (Some("bytes= 1-2 , 4-5"), 10, Parts(vec![1..3, 4..6])),
            (Some("bytes=4-5,1-2"), 10, Parts(vec![4..6, 1..3])),
            (Some("bytes=0-3,2-5"), 10, one(0..6)),
            (Some("bytes=0-3,4-5"), 10, one(0..6)),
            (Some("bytes=0-1,4-5,1-4"), 10, one(0..6)),
            (Some("bytes=0-1,20-30"), 10, one(0..2)),
            (Some("bytes=20-30,40-50"), 10, Unsatisfiable),
            (Some("bytes=0-1,,3-4,"), 10, Parts(vec![0..2, 3..5])),
            (Some("bytes=5-4"), 10, Whole),
            (Some("bytes=a-b"), 10, Whole),
            (Some("bytes=-"), 10, Whole),
            (Some("bytes=1"), 10, Whole),
            (Some("bytes=+1-2"), 10, Whole),
            (Some("bytes="), 10, Whole),
            (Some("bytes"), 10, Whole),
            (Some("lines=0-1"), 10, Whole),
        ] {
            assert_eq!(select(header, length), expected, "{header:?} of {length}");
        }
    }

    #[test]
    fn too_many_ranges_are_ignored() {
        let ranges = |count: usize| {
            format!(
                "bytes={}",
                (0..count).map(|i| format!("{}-{}", i * 3, i * 3)).collect::<Vec<_>>().join(",")
            )
        };
        assert!(matches!(select(Some(&ranges(64)), 1000), Selection::Parts(parts) if parts.len() == 64));
        assert_eq!(select(Some(&ranges(65)), 1000), Selection::Whole);
    }

    proptest! {
        #[test]
        fn a_selection_covers_what_was_asked_for_and_no_more(
            asked in prop::collection::vec((0_u64..40, 0_u64..40), 1..8),
            length in 0_u64..40,
        ) {
            let asked: Vec<_> = asked.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let specs = asked.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>();
            let selected = match select(Some(&format!("bytes={}", specs.join(","))), length) {
                Selection::Parts(parts) => parts,
                Selection::Unsatisfiable => vec![],
                Selection::Whole => return Err(TestCaseError::fail("taken for no range")),
            };
            for byte in 0..length {
                let wanted = asked.iter().any(|(first, last)| (*first..=*last).contains(&byte));
                let times = selected.iter().filter(|part| part.contains(&byte)).count();
                prop_assert_eq!(times, usize::from(wanted), "byte {}", byte);
            }
            prop_assert!(selected.iter().all(|part| part.end <= length && part.start < part.end));
        }
    }
}
