//! `sft config`: what is in force.

use std::io::Write as _;
use std::process::ExitCode;

use super::args::ClientOptions;
use crate::config::{Flags, Settings};

/// Prints the settings as a TOML file, or as JSON.
pub(super) fn run(flags: &Flags, json: bool) -> ExitCode {
    let settings = match load(flags) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    let text = if json { format!("{:#}\n", settings.to_json()) } else { settings.to_toml() };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Reads the settings; what is wrong with them is told in one line.
pub(super) fn load(flags: &Flags) -> Result<Settings, ExitCode> {
    Settings::load(flags, |name| std::env::var(name).ok()).map_err(|error| {
        eprintln!("sft: {error}");
        ExitCode::from(2)
    })
}

impl ClientOptions {
    /// `sft --port 9000 serve` means the same as `sft serve --port 9000`.
    pub(super) fn on_server(&self, mut flags: Flags) -> Flags {
        if let (Some(port), false) = (self.port, flags.values.contains_key("port")) {
            flags.set("port", port.to_string());
        }
        flags
    }
}
