//! What every client command runs in.

use std::process::ExitCode;
use std::time::Duration;

use super::args::ClientOptions;
use super::failure::Failure;
use super::options;
use super::output::Output;
use crate::client::Client;

/// A client of the server that was asked for, and how to write.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) output: Output,
}

/// How a client command is run.
pub(super) struct Frame {
    /// Client options before the command.
    pub(super) before: ClientOptions,
    /// Client options after it.
    pub(super) after: ClientOptions,
    /// Whether the command writes the content of a file to standard output.
    pub(super) stdout_is_taken: bool,
    /// What to say to who interrupts it.
    pub(super) on_interrupt: Option<String>,
}

impl Frame {
    /// Runs a client command to its end or Ctrl-C, and tells what went wrong.
    pub(super) fn run(self, command: impl AsyncFnOnce(&Session) -> Result<(), Failure>) -> ExitCode {
        let json = self.before.json || self.after.json;
        let quiet = self.before.quiet || self.after.quiet;
        let output = Output { json, quiet, stdout_is_taken: self.stdout_is_taken };
        match self.finish(output, command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                output.failure(&failure);
                ExitCode::from(failure.exit())
            }
        }
    }

    fn finish(
        self,
        output: Output,
        command: impl AsyncFnOnce(&Session) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let resolved = options::resolve(self.before, self.after, |name| std::env::var(name).ok())?;
        let client = Client::new(resolved.server, resolved.api_key.as_deref())?;
        let session = Session { client, output };
        // One thread for the network; files are read, hashed and written on others.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("setup_failed", format!("cannot start: {error}")))?;
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = command(&session) => outcome,
                Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted(self.on_interrupt)),
            }
        });
        // A read or write that hangs (a network drive) must not hold up the end.
        runtime.shutdown_timeout(Duration::from_millis(500));
        outcome
    }
}
