//! The binary in a directory of its own, and a network that breaks when a test says so.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the binary has said.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Ran {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// The one JSON document that standard output is with `--json`.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.text(), self.stderr))
    }

    #[track_caller]
    pub(super) fn succeeded(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub(super) fn failed(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

/// A directory to run in.
pub(super) struct Home(pub(super) TempDir);

impl Home {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(super) fn with(files: &[(&str, &[u8])]) -> Self {
        let home = Self::new();
        for (name, bytes) in files {
            home.write(name, bytes);
        }
        home
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).open(self.0.path().join(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.path().join(name)).ok()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) fn command(&self, server: SocketAddr, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sft"));
        command.current_dir(self.0.path()).stdin(Stdio::null()).env_remove("API_KEY");
        command.env("SFT_SERVER", format!("http://{server}")).args(arguments);
        command
    }

    pub(super) async fn sft(&self, server: SocketAddr, arguments: &[&str]) -> Ran {
        let mut command = self.command(server, arguments);
        // The server runs on this thread: the process is waited for on another one.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Ran { status: output.status, stdout: output.stdout, stderr }
    }
}

/// Stands between client and server, and breaks connections.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) spent: Arc<Notify>,
}

/// How many bytes of the first connection pass in a direction before it breaks, or stands still.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) stall: bool,
}

pub(super) const UNLIMITED: Limits = Limits { up: u64::MAX, down: u64::MAX, stall: false };

impl Proxy {
    pub(super) async fn before(server: SocketAddr, first: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, spent) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let proxy = Self { address, connections: Arc::clone(&connections), spent: Arc::clone(&spent) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let limits = if connections.fetch_add(1, Ordering::Relaxed) == 0 { first } else { UNLIMITED };
                tokio::spawn(pass(client, server, limits, Arc::clone(&spent)));
            }
        });
        proxy
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, limits: Limits, spent: Arc<Notify>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (client_reads, mut client_writes) = client.split();
    let (server_reads, mut server_writes) = server.split();
    let up = async {
        _ = tokio::io::copy(&mut client_reads.take(limits.up), &mut server_writes).await;
        if limits.up == u64::MAX {
            _ = server_writes.shutdown().await;
            std::future::pending::<()>().await;
        }
    };
    let down = async { _ = tokio::io::copy(&mut server_reads.take(limits.down), &mut client_writes).await };
    tokio::select! { () = up => (), () = down => () }
    spent.notify_one();
    if limits.stall {
        std::future::pending::<()>().await;
    }
}
