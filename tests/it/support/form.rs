//! `multipart/form-data` as clients write it, and as they should not.

/// A form that is being written.
#[derive(Debug, Clone)]
pub struct Form {
    boundary: &'static str,
    body: Vec<u8>,
}

impl Default for Form {
    fn default() -> Self {
        Self::new()
    }
}

impl Form {
    pub fn new() -> Self {
        Self { boundary: "------------------------d74496d66958873e", body: Vec::new() }
    }

    /// A form with one file in it.
    pub fn with_file(filename: &str, bytes: &[u8]) -> Self {
        Self::new().file(filename, bytes)
    }

    /// A field.
    #[must_use]
    pub fn field(self, name: &str, value: &str) -> Self {
        self.part(&format!("Content-Disposition: form-data; name=\"{name}\""), value.as_bytes())
    }

    /// A file; its name is put into the header as it is.
    #[must_use]
    pub fn file(self, filename: &str, bytes: &[u8]) -> Self {
        self.part(
            &format!(
                "Content-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
                 Content-Type: application/octet-stream"
            ),
            bytes,
        )
    }

    /// A part with these header lines.
    #[must_use]
    pub fn part(mut self, header: &str, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(format!("--{}\r\n{header}\r\n\r\n", self.boundary).as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The body, ended.
    pub fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        self.body
    }

    /// The body as far as it has been written, without its end.
    pub fn unfinished(self) -> Vec<u8> {
        self.body
    }
}
