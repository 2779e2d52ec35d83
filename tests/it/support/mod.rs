//! A real server on a free port of this machine, in a directory of its own.

mod answer;
pub mod disk;
pub mod flaky;
mod form;
pub mod live;
pub mod process;
pub mod random;
mod raw;
pub mod secret;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use smart_file_transfer::app::{App, Held, StartError};
use smart_file_transfer::config::{Flags, Settings};
use smart_file_transfer::http::serve;
use smart_file_transfer::store::status::OpenError;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use answer::Answer;
pub use form::Form;
pub use raw::{Raw, head};

/// Longer than anything in these tests takes: whoever waits so long waits for ever.
pub const FOR_EVER: Duration = Duration::from_secs(60);

/// A running server. Dropped without [`TestApp::stop`], it ends with the test's runtime.
pub struct TestApp {
    pub address: SocketAddr,
    pub http: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
    held: Option<Held>,
    directory: Directory,
}

enum Directory {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl TestApp {
    /// A server with the default settings, on a fresh directory.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server with these settings, on a fresh directory.
    pub async fn with(settings: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the test");
        Self::launch(Directory::Own(directory), settings).await
    }

    /// A server on a directory that has been used before.
    pub async fn on(directory: &Path, settings: &[(&'static str, &str)]) -> Self {
        Self::launch(Directory::Given(directory.to_owned()), settings).await
    }

    async fn launch(directory: Directory, settings: &[(&'static str, &str)]) -> Self {
        let mut flags = Flags::default();
        flags.set("upload_dir", directory.path().join("storage").to_str().expect("UTF-8"));
        flags.set("log_file", directory.path().join("status.json").to_str().expect("UTF-8"));
        for (key, value) in settings {
            flags.set(key, *value);
        }
        let settings = Settings::load(&flags, |_| None).expect("settings");
        let (app, held) = when_free(async || App::start(settings.clone()).await).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let served = tokio::spawn(serve::run(listener, app, async move { stopped.cancelled().await }));
        Self { address, http: client().build().expect("a client"), stop, served, held: Some(held), directory }
    }

    /// Asks the server to stop, as SIGTERM does, and does not wait.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops the server and waits until everything is on disk; gives its directory back, which lives as long as the guard.
    pub async fn stop(mut self) -> Stopped {
        self.ask_to_stop();
        self.served.await.expect("the server's task").expect("served");
        let held = self.held.take();
        tokio::task::spawn_blocking(move || drop(held)).await.expect("closed");
        Stopped { directory: self.directory }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// `GET` with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, Vec::new()).await
    }

    /// Any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// `PUT /files/{filename}`; the name as it stands in a path.
    pub async fn put(&self, filename: &str, bytes: impl Into<reqwest::Body>) -> Answer {
        self.put_with(filename, &[], bytes).await
    }

    /// `PUT /files/{filename}` with headers.
    pub async fn put_with(
        &self,
        filename: &str,
        headers: &[(&str, &str)],
        bytes: impl Into<reqwest::Body>,
    ) -> Answer {
        self.send("PUT", &format!("/files/{filename}"), headers, bytes).await
    }

    /// `POST /upload`.
    pub async fn post(&self, form: Form) -> Answer {
        self.post_to("/upload", &[], form).await
    }

    /// `POST` of a form, with a query and headers.
    pub async fn post_to(&self, path: &str, headers: &[(&str, &str)], form: Form) -> Answer {
        let content_type = form.content_type();
        let headers: Vec<_> =
            headers.iter().copied().chain([("content-type", content_type.as_str())]).collect();
        self.send("POST", path, &headers, form.finish()).await
    }

    /// `GET /status/{filename}`.
    pub async fn status(&self, filename: &str) -> Value {
        self.get(&format!("/status/{filename}")).await.expect(200).json()
    }

    /// The bytes that stand under a name, by `GET /download/{filename}`.
    pub async fn download(&self, filename: &str) -> Vec<u8> {
        self.get(&format!("/download/{filename}")).await.expect(200).body
    }

    /// The names in `GET /files`.
    pub async fn names(&self) -> Vec<String> {
        let files = self.get("/files").await.expect(200).json();
        let files = files["files"].as_array().expect("files");
        files.iter().map(|file| file["filename"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until the status of a name is as asked: each look is a request, so the server goes on meanwhile.
    pub async fn status_becomes(&self, filename: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(&format!("/status/{filename}")).await;
            if answer.status == 200 && is_so(&answer.json()) {
                return answer.json();
            }
            assert!(begun.elapsed() < FOR_EVER, "the status of {filename} stays {}", answer.text());
        }
    }

    /// Waits until no data of uploads is left: it is removed beside the answer to whoever failed.
    pub async fn nothing_is_left(&self) {
        let begun = Instant::now();
        while !self.leftovers().is_empty() {
            assert!(begun.elapsed() < FOR_EVER, "left behind: {:?}", self.leftovers());
            tokio::task::yield_now().await;
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The server's own directory: `storage/` and `status.json` are in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The storage directory.
    pub fn storage(&self) -> PathBuf {
        self.directory().join("storage")
    }

    /// Puts a file into the storage directory behind the server's back.
    pub fn place(&self, filename: &str, bytes: &[u8]) {
        use std::io::Write as _;
        let path = self.storage().join(filename);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(path);
        file.and_then(|mut file| file.write_all(bytes)).expect("written");
    }

    /// What there is of uploads that are running or unfinished, or was left behind. Logs of those that are complete are
    /// kept for a while.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let uploads = self.storage().join(".sft/uploads");
        let is_complete = |path: &Path| {
            path.extension().is_some_and(|extension| extension == "log")
                && std::fs::read_to_string(path).is_ok_and(|log| log.contains(r#"{"published":"#))
        };
        let entries = std::fs::read_dir(uploads).expect("uploads");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| !is_complete(path)).collect()
    }
}

/// What a stopped server leaves.
pub struct Stopped {
    directory: Directory,
}

impl Stopped {
    /// The directory that [`TestApp::on`] takes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(directory) => directory,
        }
    }
}

/// Takes a directory that this process has just let go of. A process that another test starts in that moment holds a copy
/// of the lock until it becomes the binary.
pub async fn when_free<T>(take: impl AsyncFn() -> Result<T, StartError>) -> T {
    let begun = Instant::now();
    loop {
        match take().await {
            Err(StartError::Lock(_) | StartError::Status(OpenError::Lock(_)))
                if begun.elapsed() < FOR_EVER =>
            {
                tokio::task::yield_now().await;
            }
            taken => return taken.unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

/// A client of any server.
pub fn http_client() -> reqwest::Client {
    client().build().expect("a client")
}

/// A client that is not set up yet.
pub fn client() -> reqwest::ClientBuilder {
    // Fails where it is installed already, which is as good.
    _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(FOR_EVER)
}

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    smart_file_transfer::domain::Digest::new(sha2::Sha256::digest(bytes).into()).to_string()
}

/// `length` bytes that look random and are the same every time.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
