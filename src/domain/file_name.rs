//! The name of a file: one component, safe on every system.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::UnicodeNormalization;

/// The name of a transferred file: a single path component.
///
/// What a client sends is cleaned once, at the edge, by [`FileName::clean`]; from there on the type is the proof.
/// The same function cleans a name in a form, a path, a header and a query, so that a name that was uploaded can
/// always be asked for.
///
/// A `FileName` is in Unicode normalisation form C (UAX #15), 1 to [`FileName::MAX_BYTES`] bytes long, and
/// - holds no `/`, `\`, NUL, control character, line separator or bidirectional override;
/// - holds none of `< > : " | ? *`, does not end in a dot or a space and is no device name (`CON`, `LPT1`, …):
///   Windows forbids these (a device name gets `_` before it);
/// - does not begin with a dot: such names in the storage directory are the server's own.
///
/// Cleaning a `FileName` again changes nothing. A clone is another pointer to the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FileName(Arc<str>);

/// A name of which nothing usable is left, or that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    /// Nothing is left once directories and forbidden characters are removed.
    #[error("the file name is empty once directories and forbidden characters are removed")]
    Empty,
    /// Longer than [`FileName::MAX_BYTES`]. It is not cut: two long names could become one and overwrite each other.
    #[error("the file name is longer than 255 bytes")]
    TooLong,
}

/// Device names on Windows, with or without an extension.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

impl FileName {
    /// The most bytes a name may have: what ext4, XFS, APFS and NTFS can all hold.
    pub const MAX_BYTES: usize = 255;

    /// Makes a safe name of what a client sent.
    ///
    /// # Errors
    /// [`InvalidFileName`] if nothing is left or the rest is too long.
    pub fn clean(raw: &str) -> Result<Self, InvalidFileName> {
        let component = raw.rsplit(['/', '\\']).next().unwrap_or_default();
        // ASCII is in every normalisation form (UAX #15).
        let is_clean = component.bytes().all(|byte| byte.is_ascii() && !is_forbidden(char::from(byte)));
        let name: Cow<'_, str> = if is_clean {
            component.into()
        } else {
            component.chars().filter(|c| !is_forbidden(*c)).nfc().collect()
        };
        let name = name.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
        let name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
        let name: Arc<str> = if is_device(name) { format!("_{name}").into() } else { name.into() };
        match name.len() {
            0 => Err(InvalidFileName::Empty),
            length if length > Self::MAX_BYTES => Err(InvalidFileName::TooLong),
            _ => Ok(Self(name)),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The extension with its dot, in lower case: `.jpg`; empty if there is none.
    pub fn extension(&self) -> String {
        match self.0.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => format!(".{}", extension.to_lowercase()),
            _ => String::new(),
        }
    }
}

fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*')
        // Line and paragraph separator; marks and overrides of direction, which make `exe.gpj` look like `jpg.exe`.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    if DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device)) {
        return true;
    }
    // COM and LPT with a digit; Windows takes the superscripts ¹ ² ³ for digits too.
    let Some((port, digit)) = stem.split_at_checked(3) else { return false };
    let mut digit = digit.chars();
    (port.eq_ignore_ascii_case("COM") || port.eq_ignore_ascii_case("LPT"))
        && matches!(digit.next(), Some('0'..='9' | '¹' | '²' | '³'))
        && digit.next().is_none()
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for FileName {
    type Err = InvalidFileName;

    fn from_str(raw: &str) -> Result<Self, InvalidFileName> {
        Self::clean(raw)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::clean(&raw).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(raw: &str) -> String {
        FileName::clean(raw).unwrap_or_else(|error| panic!("{raw:?}: {error}")).to_string()
    }

    #[test]
    fn names_become_one_safe_component() {
        for (raw, name) in [
            ("report.pdf", "report.pdf"),
            ("My Report (final).PDF", "My Report (final).PDF"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("C:\\x\\y.txt", "y.txt"),
            ("..\\..\\y.txt", "y.txt"),
            ("a/b\\c", "c"),
            (".env", "env"),
            ("...hidden", "hidden"),
            (". .a", "a"),
            ("a.txt. .", "a.txt"),
            ("a\0b\r\nc\u{7f}.txt", "abc.txt"),
            ("a<b>c:d\"e|f?g*.txt", "abcdefg.txt"),
            ("日本語 ファイル.txt", "日本語 ファイル.txt"),
            ("e\u{301}.txt", "é.txt"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
            ("👩\u{200d}👩\u{200d}👧.png", "👩\u{200d}👩\u{200d}👧.png"),
            ("CON", "_CON"),
            ("con.txt", "_con.txt"),
            ("nul .txt", "_nul .txt"),
            ("LPT9.log", "_LPT9.log"),
            ("com¹", "_com¹"),
            ("COM10", "COM10"),
            ("console.txt", "console.txt"),
            ("%2e%2e%2fpasswd", "%2e%2e%2fpasswd"),
        ] {
            assert_eq!(clean(raw), name, "{raw:?}");
        }
    }

    #[test]
    fn names_with_nothing_left_are_refused() {
        for raw in
            ["", ".", "..", "....", "/", "a/", "\\", " ", "\u{3000}", "\0", "\r\n", "???", ". . .", "a/.."]
        {
            assert_eq!(FileName::clean(raw), Err(InvalidFileName::Empty), "{raw:?}");
        }
    }

    #[test]
    fn a_name_of_255_bytes_is_the_longest() {
        assert_eq!(clean(&"a".repeat(255)).len(), 255);
        assert_eq!(FileName::clean(&"a".repeat(256)), Err(InvalidFileName::TooLong));
        assert_eq!(FileName::clean(&"é".repeat(128)), Err(InvalidFileName::TooLong));
        // A device name of 255 bytes grows by its underscore.
        assert_eq!(FileName::clean(&format!("con.{}", "a".repeat(251))), Err(InvalidFileName::TooLong));
    }

    #[test]
    fn the_extension_is_the_last_one() {
        for (name, extension) in [("a.JPG", ".jpg"), ("a.tar.gz", ".gz"), ("a", ""), ("a b.c d", ".c d")] {
            assert_eq!(FileName::clean(name).unwrap().extension(), extension, "{name}");
        }
    }

    fn nasty() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "/",
                "\\",
                ".",
                "..",
                " ",
                "\0",
                "con",
                "LPT1",
                "nul",
                "e\u{301}",
                "\u{301}",
                "<\u{338}",
                "\u{37e}",
                "\u{1fef}",
                "\u{2000}",
                "\u{202e}",
                ":",
                "a",
                ".txt",
                "\u{1100}\u{1161}",
                "\u{fb1d}",
            ])
            .prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn cleaning_twice_changes_nothing(raw in nasty()) {
            if let Ok(name) = FileName::clean(&raw) {
                prop_assert_eq!(FileName::clean(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn a_name_is_always_one_component_inside_the_directory(raw in nasty()) {
            if let Ok(name) = FileName::clean(&raw) {
                let path = std::path::Path::new("/storage").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/storage")));
                prop_assert_eq!(path.components().count(), 3);
                prop_assert!(!name.as_str().starts_with('.'));
                prop_assert!(name.as_str().len() <= FileName::MAX_BYTES && !name.as_str().is_empty());
                prop_assert!(!name.as_str().chars().any(|c| c.is_control() || "/\\:<>\"|?*".contains(c)));
                prop_assert!(!name.as_str().ends_with(['.', ' ']));
            }
        }
    }
}
