//! A storage directory, servers on it and commands beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{FOR_EVER, TestApp};

/// The key of these tests, and of the older deployment.
pub(super) const KEY: &str = "DevKey1234567890";

/// A directory with `storage/` and `status.json`.
pub(super) struct Place(TempDir);

/// What the binary has said.
pub(super) struct Ran(Output);

impl Ran {
    pub(super) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("text")
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    pub(super) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("text")
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout(), self.stderr()))
    }

    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        let stderr = self.stderr();
        let stdout = String::from_utf8_lossy(&self.0.stdout);
        assert_eq!(self.0.status.code(), Some(code), "{stdout}{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        self
    }
}

impl Place {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn storage(&self) -> PathBuf {
        self.path().join("storage")
    }

    pub(super) fn container(&self, name: &str) -> PathBuf {
        self.storage().join(".sft/encrypted").join(name)
    }

    /// A server on this directory, in this process.
    pub(super) async fn server(&self, settings: &[(&'static str, &str)]) -> TestApp {
        TestApp::on(self.path(), settings).await
    }

    /// Has a server take these files, of which those named `sealed…` are sealed.
    pub(super) async fn with(settings: &[(&'static str, &str)], files: &[(&str, &[u8])]) -> Self {
        let place = Self::new();
        let app = place.server(settings).await;
        for (name, bytes) in files {
            let query = if name.starts_with("sealed") { "?encryption=true" } else { "" };
            app.put(&format!("{name}{query}"), bytes.to_vec()).await.expect(201);
        }
        app.stop().await;
        place
    }

    pub(super) fn command(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sft"));
        command
            .args(arguments)
            .env_clear()
            .env("UPLOAD_DIR", self.storage())
            .env("LOG_FILE", self.path().join("status.json"))
            .envs(settings.iter().copied())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(super) async fn sft(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let begun = Instant::now();
        loop {
            let ran = self.sft_once(settings, arguments).await;
            let said = [ran.stderr().as_bytes(), ran.bytes()].concat();
            // By a process that another test has started in the moment when this one's server let go (`when_free`).
            let is_in_use = String::from_utf8_lossy(&said).contains("in use by another server");
            if !is_in_use || begun.elapsed() > FOR_EVER {
                return ran;
            }
        }
    }

    /// The same, where the directory is in use.
    pub(super) async fn sft_once(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.command(settings, arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the binary"));
        Ran(output.await.expect("its output"))
    }

    /// Writes a file, whatever stands there; the path is relative to the directory, or absolute.
    pub(super) fn write(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        use std::io::Write as _;
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(path);
        file.and_then(|mut file| file.write_all(bytes)).expect("written");
    }

    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        std::fs::read(self.path().join(path)).ok()
    }

    /// Turns a bit of a file around.
    pub(super) fn damage(&self, path: impl AsRef<Path>, at: usize) {
        let path = self.path().join(path);
        let mut bytes = self.read(&path).expect("a file");
        bytes[at] ^= 1;
        self.write(&path, &bytes);
    }

    /// Every file below the directory, with its content.
    pub(super) fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(self.path())
    }
}

/// Every file below a directory, with its content.
pub(super) fn files_below(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// The older deployment of the fixtures.
pub(super) fn older() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/older-deployment")
}

/// What its file of this name holds: SHA-256("NAME:0") SHA-256("NAME:1") … cut to its length.
pub(super) fn older_content(name: &str, length: usize) -> Vec<u8> {
    use sha2::Digest as _;
    let blocks = (0..length.div_ceil(32)).flat_map(|n| sha2::Sha256::digest(format!("{name}:{n}")));
    blocks.take(length).collect()
}
