//! How urgent a transfer is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An integer from 0 (default) to 10 (first).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

/// A value that is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("takes an integer from 0 to 10")]
pub struct InvalidPriority;

impl TryFrom<u8> for Priority {
    type Error = InvalidPriority;

    fn try_from(value: u8) -> Result<Self, InvalidPriority> {
        if value <= 10 { Ok(Self(value)) } else { Err(InvalidPriority) }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

impl FromStr for Priority {
    type Err = InvalidPriority;

    fn from_str(text: &str) -> Result<Self, InvalidPriority> {
        text.trim().parse::<u8>().map_err(|_| InvalidPriority)?.try_into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_an_integer_from_0_to_10() {
        for (text, value) in [("0", 0), ("10", 10), (" 7 ", 7)] {
            assert_eq!(text.parse::<Priority>().map(u8::from), Ok(value));
        }
        for text in ["", "-1", "11", "1.5", "high", "256"] {
            assert_eq!(text.parse::<Priority>(), Err(InvalidPriority), "{text}");
        }
    }
}
