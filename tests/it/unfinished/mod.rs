//! Unfinished uploads where things go wrong: damage, a full disk, a stop in the middle. With the real binary.

mod damage;
mod full;
mod marks;
mod stop;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::process::Process;
use crate::support::{Answer, FOR_EVER, Form, Raw, http_client, sha256};
use crate::tus::{BYTES, VERSION, metadata};

const KEY: (&str, &str) = ("ENCRYPTION_KEY", "a key of these tests");

/// A server that is ended and begun again.
struct Server {
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Server {
    async fn start(directory: &Path, settings: &[(&'static str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let (process, address) = Self::begin(directory, &settings).await;
        Self { process, address, directory: directory.to_owned(), settings }
    }

    async fn begin(directory: &Path, settings: &[(&'static str, String)]) -> (Process, SocketAddr) {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let always = [KEY, ("MIN_FREE_SPACE", "0")];
        Process::start(directory, &[&always, &settings[..]].concat()).await
    }

    async fn restart(&mut self) {
        (self.process, self.address) = Self::begin(&self.directory, &self.settings).await;
    }

    async fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart().await;
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let request = http_client().request(method.parse().expect("a method"), url).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// Begins a tus upload; gives its path.
    async fn create(&self, filename: &str, length: usize, sealed: bool) -> String {
        let metadata = metadata(&[("filename", filename), ("encryption", &sealed.to_string())]);
        let length = length.to_string();
        let headers = [VERSION, ("Upload-Metadata", &metadata), ("Upload-Length", &length)];
        self.send("POST", "/uploads/", &headers, "").await.expect(201).header("location").to_owned()
    }

    async fn patch(&self, path: &str, offset: usize, bytes: &[u8]) -> Answer {
        let offset = offset.to_string();
        self.send("PATCH", path, &[VERSION, BYTES, ("Upload-Offset", &offset)], bytes.to_vec()).await
    }

    /// Begins a PATCH at `offset` of a file of `length` bytes, sends some, and waits until the server has them.
    async fn hanging(&self, name: &str, path: &str, offset: usize, length: usize, bytes: &[u8]) -> Raw {
        let mut raw = Raw::connect(self.address).await;
        let (at, to_come) = (offset.to_string(), (length - offset).to_string());
        let headers = [VERSION, BYTES, ("Upload-Offset", &at), ("Content-Length", &to_come)];
        raw.send_head(&format!("PATCH {path}"), &headers).await;
        raw.send(bytes).await;
        let begun = std::time::Instant::now();
        while self.status(name).await["transferred_bytes"] != offset + bytes.len() {
            assert!(begun.elapsed() < FOR_EVER && !raw.has_answer(), "the server has not taken it");
        }
        raw
    }

    async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[VERSION], "").await
    }

    async fn offset(&self, path: &str) -> usize {
        self.head(path).await.expect(200).header("upload-offset").parse().expect("an offset")
    }

    async fn chunk(&self, name: &str, bytes: &[u8], size: usize, number: usize, sealed: bool) -> Answer {
        let piece = bytes.chunks(size).nth(number).expect("a chunk");
        self.chunk_of(name, piece, number, bytes.len().div_ceil(size), sealed).await
    }

    async fn chunk_of(&self, name: &str, piece: &[u8], number: usize, total: usize, sealed: bool) -> Answer {
        let form = Form::new()
            .field("filename", name)
            .field("chunk_number", &number.to_string())
            .field("total_chunks", &total.to_string())
            .field("chunk_hash", &sha256(piece))
            .field("encryption", &sealed.to_string())
            .part("Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"", piece);
        let kind = form.content_type();
        self.send("POST", "/upload_chunk", &[("Content-Type", &kind)], form.finish()).await
    }

    /// The numbers of the chunks that are there.
    async fn received(&self, name: &str) -> Vec<u64> {
        let info = self.get(&format!("/resume_info/{name}")).await;
        info["received_chunks"].as_array().expect("numbers").iter().filter_map(Value::as_u64).collect()
    }

    async fn get(&self, path: &str) -> Value {
        self.send("GET", path, &[], "").await.expect(200).json()
    }

    async fn status(&self, name: &str) -> Value {
        self.get(&format!("/status/{name}")).await
    }

    async fn download(&self, name: &str) -> Vec<u8> {
        self.send("GET", &format!("/download/{name}"), &[], "").await.expect(200).body
    }

    async fn names(&self) -> Vec<String> {
        let files = self.get("/files?limit=1000").await;
        let files = files["files"].as_array().expect("files");
        files.iter().map(|file| file["filename"].as_str().expect("a name").to_owned()).collect()
    }

    /// The one file among the uploads with this ending.
    fn upload_file(&self, ending: &str) -> PathBuf {
        let uploads = std::fs::read_dir(self.directory.join("storage/.sft/uploads")).expect("uploads");
        let mut found: Vec<_> = uploads.map(|entry| entry.expect("an entry").path()).collect();
        found.retain(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

/// Replaces what a file holds.
fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).truncate(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("written");
}
