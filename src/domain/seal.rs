//! Which container holds a sealed file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Sixteen public bytes, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex16(pub [u8; 16]);

/// The random nonce of a container and the tag of its last segment. By them one that was put in another's place is
/// noticed. Public: they say nothing of key or content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Seal {
    /// The container's own random value.
    pub nonce: Hex16,
    /// The EAX tag of its last segment.
    pub tag: Hex16,
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("takes 32 hexadecimal digits")]
pub struct InvalidHex16;

impl fmt::Display for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hex16 {
    type Err = InvalidHex16;

    fn from_str(text: &str) -> Result<Self, InvalidHex16> {
        let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).map_err(|_| InvalidHex16)?;
        if is_hex { Ok(Self(value.to_be_bytes())) } else { Err(InvalidHex16) }
    }
}

impl Serialize for Hex16 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex16 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        let bytes = Hex16([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xfe, 0xff]);
        assert_eq!(bytes.to_string(), "000102030405060708090a0b0c0dfeff");
        assert_eq!(bytes.to_string().parse(), Ok(bytes));
        for text in ["", "00", "+00102030405060708090a0b0c0dfeff", "000102030405060708090a0b0c0dfeffff"] {
            assert_eq!(text.parse::<Hex16>(), Err(InvalidHex16), "{text}");
        }
    }
}
