//! The real binary, as a process of its own: it can be killed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// Nothing that a test waits for takes so long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `sft serve` on a free port. Dropped, it is killed.
pub struct Process {
    child: Child,
    log: watch::Receiver<Log>,
}

/// What the process has written to its standard error.
#[derive(Default)]
struct Log {
    text: String,
    ended: bool,
}

impl Process {
    /// Starts the server with `storage/` and `status.json` in this directory, and does not wait for it.
    pub fn spawn(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_sft")), directory, settings)
    }

    /// The same by a program that becomes the server and leaves a watcher behind (`strace -D … sft serve`). The log ends
    /// only when the watcher ends too.
    pub fn spawn_under(watcher: &[&OsStr], directory: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(watcher[0]);
        command.args(&watcher[1..]).arg(env!("CARGO_BIN_EXE_sft"));
        Self::run(command, directory, settings)
    }

    fn run(mut command: Command, directory: &Path, settings: &[(&str, &str)]) -> Self {
        command
            .arg("serve")
            .env_clear()
            .env("SERVER_HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("UPLOAD_DIR", directory.join("storage"))
            .env("LOG_FILE", directory.join("status.json"))
            .envs(settings.iter().copied())
            // Where no `config/default.toml` is.
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's process");
        let lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, log) = watch::channel(Log::default());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                sender.send_modify(|log| {
                    log.text += &line;
                    log.text.push('\n');
                });
            }
            sender.send_modify(|log| log.ended = true);
        });
        Self { child, log }
    }

    /// Starts the server and waits until it listens.
    pub async fn start(directory: &Path, settings: &[(&str, &str)]) -> (Self, SocketAddr) {
        let process = Self::spawn(directory, settings);
        let address = process.address().await;
        (process, address)
    }

    /// Where it listens, as soon as it does.
    pub async fn address(&self) -> SocketAddr {
        const LISTENING: &str = "listening on http://";
        self.logged(LISTENING).await;
        let log = self.log();
        let rest = &log[log.find(LISTENING).expect("logged") + LISTENING.len()..];
        let address: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
        address.parse().expect("an address")
    }

    /// Waits until this stands in the log.
    pub async fn logged(&self, text: &str) {
        let mut log = self.log.clone();
        let found = log.wait_for(|log| log.ended || log.text.contains(text));
        let found = tokio::time::timeout(PATIENCE, found).await;
        let found = found.is_ok_and(|log| log.is_ok_and(|log| log.text.contains(text)));
        assert!(found, "the server has not logged {text:?}, but:\n{}", self.log());
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.borrow().text.clone()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        // Fails where it has ended by itself, which is as good.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().cast_signed();
        _ = kill_process(Pid::from_raw(pid).expect("a process number"), signal);
    }

    /// Waits until it has ended by itself, and everything that it logged is there.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut log = self.log.clone();
        let ended = tokio::time::timeout(PATIENCE, log.wait_for(|log| log.ended)).await;
        assert!(ended.is_ok(), "the server does not end:\n{}", self.log());
        self.child.wait().expect("an exit status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}
