//! `sft`: the server and its command line. A shim: see [`smart_file_transfer::cli`].

use std::process::ExitCode;

use smart_file_transfer::cli::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    smart_file_transfer::cli::run()
}
