//! `sft completions`

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;

/// Prints the script.
///
/// # Errors
/// What the output said.
pub(super) fn run(shell: Shell) -> std::io::Result<()> {
    // To memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sft", &mut script);
    std::io::stdout().write_all(&script)
}
