//! Checksummed lines: what the server's journals are made of.
//!
//! 8 hexadecimal digits, the CRC-32 (IEEE 802.3) of the JSON text that follows after a space, and a line feed: damage is
//! found, and a line without a line feed was torn by a crash.

use std::io;

use serde::Serialize;

/// Adds a line.
///
/// # Errors
/// Only if `value` can't be put into JSON.
pub(super) fn write_line(lines: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let start = lines.len();
    lines.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *lines, value)?;
    let checksum = crc32fast::hash(&lines[start + 9..]);
    lines[start..start + 8].copy_from_slice(format!("{checksum:08x}").as_bytes());
    lines.push(b'\n');
    Ok(())
}

/// The JSON of a whole line.
pub(super) fn check(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = (line.get(..8)?, line.get(9..)?);
    let checksum = u32::from_str_radix(str::from_utf8(checksum).ok()?, 16).ok()?;
    (line[8] == b' ' && crc32fast::hash(json) == checksum).then_some(json)
}
