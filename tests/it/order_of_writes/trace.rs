//! Reads what `strace -f -yy` writes: the system calls of all threads, in the order in which they began and ended.

use std::collections::HashMap;

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<String>,
    /// What it gave; -1 where it failed.
    pub result: i64,
    /// The lines of the trace in which it began and ended: another one that began on a later line than this ended has
    /// come after it.
    pub began: usize,
    pub ended: usize,
}

impl Call {
    /// What the file descriptor that is its first argument stands for: a path, `TCP:[…]`.
    pub fn target(&self) -> Option<&str> {
        let (number, rest) = self.arguments.first()?.split_once('<')?;
        number.parse::<u32>().ok()?;
        rest.strip_suffix('>')
    }

    /// The texts among its arguments.
    pub fn texts(&self) -> Vec<Vec<u8>> {
        self.arguments.iter().flat_map(|argument| texts(argument)).collect()
    }
}

/// The calls of a trace, in the order in which they ended. Those that never ended (the process was killed) are left out.
///
/// # Panics
/// On a line that is none of `strace`'s.
pub fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap_or_else(|| panic!("line {number}: {line}"));
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begun));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, resumed) = resumed.split_once(" resumed>").expect("what was resumed");
            let (began, begun) = unfinished.remove(thread).expect("it was begun before");
            calls.push(call(&format!("{begun}{resumed}"), began, number));
        } else {
            calls.push(call(rest, number, number));
        }
    }
    calls
}

fn call(text: &str, began: usize, ended: usize) -> Call {
    let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("no call: {text}"));
    let (arguments, rest) = split(rest);
    let result = rest.trim_start().strip_prefix('=').unwrap_or_else(|| panic!("no result: {text}"));
    let digits = |c: char| c.is_ascii_digit() || c == '-';
    let result = result.trim_start();
    let result = &result[..result.find(|c| !digits(c)).unwrap_or(result.len())];
    // "?": the thread ended in it.
    Call { name: name.to_owned(), arguments, result: result.parse().unwrap_or(-1), began, ended }
}

/// Splits at the commas that stand in no bracket, text or description of a file, up to the closing parenthesis; gives what follows that too.
fn split(text: &str) -> (Vec<String>, &str) {
    let bytes = text.as_bytes();
    let (mut arguments, mut depth, mut start, mut at) = (Vec::new(), 0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_text(bytes, at),
            b'<' => at = end_of_description(text, at),
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                if !text[start..at].trim().is_empty() {
                    arguments.push(text[start..at].trim().to_owned());
                }
                return (arguments, &text[at + 1..]);
            }
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                arguments.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    panic!("the call does not end: {text}");
}

/// The place of the quote that ends the text which begins at `at`.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end
}

/// The place of the `>` that ends the description which begins at `at`: `</a/path>`, `<TCP:[…->…]>`. Elsewhere (`<<`) it is a mere sign.
fn end_of_description(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let end = if rest.starts_with("</") { rest.find('>') } else { rest.find("]>").map(|end| end + 1) };
    end.map_or(at, |end| at + end)
}

/// The texts in an argument, as the bytes that they stand for.
fn texts(argument: &str) -> Vec<Vec<u8>> {
    let bytes = argument.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = end_of_text(bytes, at);
                found.push(unescape(&bytes[at + 1..end]));
                at = end;
            }
            b'<' => at = end_of_description(argument, at),
            _ => {}
        }
        at += 1;
    }
    found
}

/// C's escapes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if text[at] != b'\\' {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        at += 2;
        bytes.push(match text[at - 1] {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'x' => {
                let digits = std::str::from_utf8(&text[at..at + 2]).expect("two digits");
                at += 2;
                u8::from_str_radix(digits, 16).expect("hexadecimal")
            }
            digit @ b'0'..=b'7' => {
                let mut value = u32::from(digit - b'0');
                let mut digits = 1;
                while digits < 3 && at < text.len() && (b'0'..=b'7').contains(&text[at]) {
                    value = value * 8 + u32::from(text[at] - b'0');
                    (at, digits) = (at + 1, digits + 1);
                }
                value as u8
            }
            other => other,
        });
    }
    bytes
}

#[test]
fn calls_are_read_with_what_they_were_given() {
    let trace = "\
        12 write(5</tmp/a, (b) [c]>, \"x, \\\"y\\\"\\n\\0001\\377\", 9) = 9\n\
        12 rename(\"/tmp/a\", \"/tmp/b\") = -1 ENOENT (No such file or directory)\n\
        13 writev(9<TCP:[127.0.0.1:80->127.0.0.1:90]>, [{iov_base=\"HTTP\", iov_len=4}, {iov_base=\"/1.1\"..., iov_len=7}], 2) = 11\n\
        12 +++ exited with 0 +++\n";
    let calls = parse(trace);
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].target(), Some("/tmp/a, (b) [c]"));
    assert_eq!(calls[0].texts(), [b"x, \"y\"\n\x001\xff".to_vec()]);
    assert_eq!((calls[0].result, calls[1].result), (9, -1));
    assert_eq!(calls[1].texts(), [b"/tmp/a".to_vec(), b"/tmp/b".to_vec()]);
    assert_eq!(calls[2].target(), Some("TCP:[127.0.0.1:80->127.0.0.1:90]"));
    assert_eq!(calls[2].texts().concat(), b"HTTP/1.1");
}

#[test]
fn a_call_that_others_interrupt_begins_where_it_began_and_ends_where_it_ended() {
    let trace = "\
        12 fsync(5</tmp/a> <unfinished ...>\n\
        13 fsync(6</tmp/b> <unfinished ...>\n\
        12 <... fsync resumed>) = 0\n\
        14 fdatasync(7</tmp/c>) = 0\n\
        13 <... fsync resumed>) = -1 EIO (Input/output error)\n\
        15 fsync(8</tmp/d> <unfinished ...>\n";
    let calls = parse(trace);
    let order: Vec<_> = calls
        .iter()
        .map(|call| (call.target().expect("a path"), call.began, call.ended, call.result))
        .collect();
    assert_eq!(order, [("/tmp/a", 0, 2, 0), ("/tmp/c", 3, 3, 0), ("/tmp/b", 1, 4, -1)]);
}
