//! Parsing of the small values that forms, queries and headers share.

/// A text that is no boolean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("takes true, 1, yes, on, false, 0, no or off")]
pub struct InvalidBoolean;

/// Reads `true|1|yes|on` and `false|0|no|off`, in any case; surrounding white space is ignored.
///
/// # Errors
/// Any other text, the empty one included.
pub fn parse_boolean(text: &str) -> Result<bool, InvalidBoolean> {
    let text = text.trim();
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is_one_of(["true", "1", "yes", "on"]) => Ok(true),
        () if is_one_of(["false", "0", "no", "off"]) => Ok(false),
        () => Err(InvalidBoolean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_boolean_is_read() {
        for word in ["true", "TRUE", "1", "Yes", "oN", " true "] {
            assert_eq!(parse_boolean(word), Ok(true), "{word}");
        }
        for word in ["false", "False", "0", "no", "OFF"] {
            assert_eq!(parse_boolean(word), Ok(false), "{word}");
        }
        for word in ["", "2", "ja", "truee", "nil"] {
            assert_eq!(parse_boolean(word), Err(InvalidBoolean), "{word}");
        }
    }
}
