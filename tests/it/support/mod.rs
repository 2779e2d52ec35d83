//! A real server on a free port of this machine, in a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use smart_file_transfer::app::{App, Held};
use smart_file_transfer::config::{Flags, Settings};
use smart_file_transfer::http::serve;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
        let (app, held) = App::start(settings).await.expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let served = tokio::spawn(serve::run(listener, app, async move { stopped.cancelled().await }));
        Self { address, http: http_client(), stop, served, held: Some(held), directory }
    }

    /// Stops the server and waits until everything is on disk; gives its directory back, which lives as long as the guard.
    pub async fn stop(mut self) -> Stopped {
        self.stop.cancel();
        self.served.await.expect("the server's task").expect("served");
        let held = self.held.take();
        tokio::task::spawn_blocking(move || drop(held)).await.expect("closed");
        Stopped { directory: self.directory }
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

    /// Data files of uploads that are running, or were left behind.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let uploads = self.storage().join(".sft/uploads");
        std::fs::read_dir(uploads).expect("uploads").map(|entry| entry.expect("an entry").path()).collect()
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

fn http_client() -> reqwest::Client {
    // Fails where it is installed already, which is as good.
    _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
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
