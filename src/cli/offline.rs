//! What every command runs in that works on a storage directory without a server.

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{ClientOptions, OfflineOptions};
use super::failure::Failure;
use super::logging;
use super::output::Output;
use crate::config::Settings;

/// What a command is given.
pub(super) struct Offline {
    pub(super) settings: Settings,
    pub(super) output: Output,
    /// Cancelled by Ctrl-C: the command then ends soon and leaves nothing half-done behind.
    pub(super) stop: CancellationToken,
}

/// Runs a command to its end or Ctrl-C, and tells what went wrong.
pub(super) fn run(
    before: &ClientOptions,
    options: OfflineOptions,
    stdout_is_taken: bool,
    command: impl AsyncFnOnce(Offline) -> Result<(), Failure>,
) -> ExitCode {
    let (json, quiet) = (before.json || options.json, before.quiet || options.quiet);
    let output = Output { json, quiet, stdout_is_taken };
    match finish(output, options, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit())
        }
    }
}

fn finish(
    output: Output,
    options: OfflineOptions,
    command: impl AsyncFnOnce(Offline) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let settings = Settings::load(&options.settings.0, |name| std::env::var(name).ok())
        .map_err(|error| Failure::usage(error.to_string()))?;
    logging::warnings();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("setup_failed", format!("cannot start: {error}")))?;
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        let command = command(Offline { settings, output, stop: stop.clone() });
        let mut command = std::pin::pin!(command);
        tokio::select! {
            outcome = &mut command => return outcome,
            Ok(()) = tokio::signal::ctrl_c() => stop.cancel(),
        }
        // What it has finished by now is done and told.
        command.await
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}
