//! The form around a chunk.

use std::fmt::Write as _;

use bytes::Bytes;

use super::plan::Division;
use crate::client::Upload;
use crate::domain::Digest;

/// What is said about a chunk.
pub(super) struct Fields<'a> {
    pub(super) upload: &'a Upload,
    pub(super) division: Division,
    pub(super) number: u64,
    pub(super) chunk_hash: Digest,
    pub(super) file_hash: Digest,
    pub(super) upload_id: Option<&'a str>,
}

impl Fields<'_> {
    /// What stands before and behind the bytes of the chunk, which come last so that the server knows everything before the
    /// first of them.
    pub(super) fn frame(&self, boundary: &str) -> [Bytes; 2] {
        let mut before = String::with_capacity(2048);
        let mut field = |name: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = write!(
                before,
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        };
        // A file name has no control characters: it can't end its field.
        field("filename", self.upload.name.as_str());
        field("chunk_number", &self.number.to_string());
        field("total_chunks", &self.division.count().to_string());
        field("chunk_hash", &self.chunk_hash.to_string());
        if let Some(id) = self.upload_id {
            field("upload_id", id);
        }
        field("file_size", &self.division.size.to_string());
        field("file_hash", &self.file_hash.to_string());
        field("chunk_size", &self.division.chunk.to_string());
        if self.upload.encrypt {
            field("encryption", "true");
        }
        if let Some(priority) = self.upload.priority {
            field("priority", &u8::from(priority).to_string());
        }
        // With a file name of its own: some servers take what has none for text.
        let _ = write!(
            before,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        [before.into(), format!("\r\n--{boundary}--\r\n").into()]
    }
}
