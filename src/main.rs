//! `sft`: the server and its command line. A shim: see [`smart_file_transfer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    smart_file_transfer::cli::run()
}
