//! The `Content-Disposition` of a form's part (RFC 7578 §4.2), as clients really write it. Pure.

use percent_encoding::percent_decode;

/// What a part is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    /// The field's name.
    pub(super) name: Option<String>,
    /// The file's name, as it was sent.
    pub(super) filename: Option<String>,
}

/// Reads the header's value. What is no UTF-8 is taken for absent: nobody could ask for it again.
pub(super) fn parse(value: &[u8]) -> Disposition {
    let mut disposition = Disposition::default();
    let mut extended = None;
    // `form-data`, or whatever stands in its place.
    let mut rest = value.iter().position(|byte| *byte == b';').map_or(&b""[..], |end| &value[end..]);
    while let Some((name, value, after)) = parameter(rest) {
        rest = after;
        // The first one counts, whatever comes after it.
        match name.as_str() {
            "name" => disposition.name = disposition.name.or_else(|| text(value)),
            "filename" => disposition.filename = disposition.filename.or_else(|| text(value)),
            "filename*" => extended = extended.or_else(|| decode_extended(&value)),
            _ => {}
        }
    }
    disposition.filename = extended.or(disposition.filename);
    disposition
}

/// The next parameter, its name in lower case, and what comes after it.
fn parameter(rest: &[u8]) -> Option<(String, Vec<u8>, &[u8])> {
    let begin = rest.iter().position(|byte| *byte != b';' && !byte.is_ascii_whitespace())?;
    let rest = &rest[begin..];
    let end = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
    let name = String::from_utf8_lossy(rest[..end].trim_ascii()).to_ascii_lowercase();
    let Some(value) = rest[end..].strip_prefix(b"=") else {
        // A name alone says nothing, not even which.
        return Some((String::new(), Vec::new(), &rest[end..]));
    };
    match value.trim_ascii_start().strip_prefix(b"\"") {
        Some(quoted) => {
            let (value, after) = unquote(quoted);
            Some((name, value, after))
        }
        None => {
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            Some((name, value[..end].trim_ascii().to_vec(), &value[end..]))
        }
    }
}

/// The text up to the closing quotation mark. A backslash escapes the mark and itself; before anything else it is one, as
/// in the Windows paths that old browsers send.
fn unquote(quoted: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    loop {
        match rest {
            [] => return (text, rest),
            [b'"', after @ ..] => return (text, after),
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                text.push(*escaped);
                rest = after;
            }
            [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
        }
    }
}

/// Browsers, curl and `requests` write these three, and only these, in percent (WHATWG HTML §4.10.22.8).
fn text(value: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(value).ok()?;
    if !text.contains('%') {
        return Some(text);
    }
    Some(text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"))
}

/// `utf-8'en'r%C3%A9sum%C3%A9.txt` (RFC 8187). RFC 7578 forbids it here; older `requests` send it all the same.
fn decode_extended(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case(b"utf-8") {
        return None;
    }
    percent_decode(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_however_clients_write_them() {
        for (value, name, filename) in [
            ("form-data; name=\"file\"; filename=\"a.txt\"", Some("file"), Some("a.txt")),
            ("form-data; name=file; filename=a.txt", Some("file"), Some("a.txt")),
            ("form-data;name = \"file\" ; FILENAME = \"a.txt\"", Some("file"), Some("a.txt")),
            ("form-data; filename=\"x; name=evil\"; name=\"file\"", Some("file"), Some("x; name=evil")),
            ("form-data; name=\"a\"; name=\"b\"", Some("a"), None),
            ("form-data; name=\"file\"; filename=\"\"", Some("file"), Some("")),
            ("form-data; name=\"a\\\"b\"; filename=\"c\\\\d\"", Some("a\"b"), Some("c\\d")),
            ("form-data; name=\"file\"; filename=\"C:\\x\\y.txt\"", Some("file"), Some("C:\\x\\y.txt")),
            (
                "form-data; name=\"file\"; filename=\"a%22%0D%0A%25.txt\"",
                Some("file"),
                Some("a\"\r\n%25.txt"),
            ),
            ("form-data; filename*=UTF-8''%C3%A9; filename=\"e\"", None, Some("é")),
            ("form-data; filename=\"e\"; filename*=utf-8'fr'%C3%A9", None, Some("é")),
            ("form-data; filename=\"e\"; filename*=iso-8859-1''%E9", None, Some("e")),
            ("form-data; filename=\"e\"; filename*=utf-8''%FF", None, Some("e")),
            ("form-data; filename=\"e\"; filename*=nonsense", None, Some("e")),
            ("form-data; name=\"never closed", Some("never closed"), None),
            ("form-data; name", None, None),
            ("form-data", None, None),
            ("", None, None),
        ] {
            let read = parse(value.as_bytes());
            assert_eq!((read.name.as_deref(), read.filename.as_deref()), (name, filename), "{value}");
        }
        assert_eq!(parse(b"form-data; name=\"f\"; filename=\"\xe9\"").filename, None);
    }
}
