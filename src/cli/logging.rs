//! The server's log: text or JSON, to standard error or a file.

mod text;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use self::text::{Clock, Fields};
use crate::config::{LogFormat, Settings};

/// Lines that may wait to be written; more are dropped and counted, rather than to hold transfers up.
const WAITING: usize = 64 << 10;

/// How late a line may be.
const PACE: Duration = Duration::from_millis(10);

/// Starts logging. Lines are written by a thread of their own; dropped, the guard waits until the last is.
///
/// # Errors
/// The log file can't be opened.
pub(super) fn start(settings: &Settings) -> io::Result<WorkerGuard> {
    let (writer, guard, colour) = match &settings.server_log_file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let (writer, guard) = writer(file);
            (writer, guard, false)
        }
        None => {
            let (writer, guard) = writer(io::stderr());
            (writer, guard, io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        }
    };
    // The libraries' own lines only from warnings on.
    let level = LevelFilter::from_level(settings.log_level);
    let filter =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("smart_file_transfer", level);
    let lines = fmt::layer().with_writer(writer).with_ansi(colour).with_target(false).with_timer(Clock);
    let lines = match settings.log_format {
        LogFormat::Text => lines.fmt_fields(Fields).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(lines).init();
    Ok(guard)
}

/// Warnings of a command that works without a server, to standard error.
pub(super) fn warnings() {
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .without_time()
        .with_filter(LevelFilter::WARN);
    tracing_subscriber::registry().with(lines).init();
}

fn writer(target: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .lossy(true)
        .thread_name("sft-log")
        .finish(Paced(io::BufWriter::with_capacity(64 << 10, target)))
}

/// The thread flushes when no line waits; this lets some come together first. Under load, lines then share a write and, as
/// the thread is not asleep for want of them, wake nobody: it makes 4 KiB downloads a third faster.
struct Paced<W: io::Write>(io::BufWriter<W>);

impl<W: io::Write> io::Write for Paced<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        std::thread::sleep(PACE);
        self.0.flush()
    }
}
