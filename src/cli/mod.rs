//! The command line: what was typed becomes resolved options, these an exit status.
//!
//! Data goes to standard output, everything else to standard error. With `--json`, standard output holds exactly one JSON
//! document, whatever happens: the answer, or `{"success": false, "error": …, "code": …}` (a file that is written to
//! standard output takes the place; the document then goes to standard error), or, of what goes on, one a line. Exit status: 0; 1 for failure, or when
//! interrupted; 2 for wrong usage.
//!
//! A command is a variant of [`args::Command`], an arm in [`run`] and a file of its own. One that talks to a server flattens
//! [`args::ClientOptions`] into its arguments and is run by a `session::Frame`; one that works on a storage directory without a
//! server flattens [`args::OfflineOptions`] and is run by `offline::run`; one that does neither (such as a server) has
//! nothing to do with them, and may have options of the same names.

mod allocator;
pub mod args;
mod completions;
mod config;
mod decrypt;
mod download;
mod failure;
mod health;
mod import;
mod logging;
mod offline;
mod options;
mod output;
mod progress;
mod rekey;
mod serve;
mod session;
mod status;
mod upload;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Parser;

pub use self::allocator::Allocator;
use self::args::{Cli, Command};
use self::session::Frame;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also for --help and --version. Nobody is left to be told that it cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let before = cli.client;
    let frame = |after: &args::ClientOptions| Frame {
        before: before.clone(),
        after: after.clone(),
        stdout_is_taken: false,
        on_interrupt: None,
    };
    match cli.command {
        Command::Upload(args) => {
            let frame = Frame { on_interrupt: upload::on_interrupt(&args), ..frame(&args.client) };
            frame.run(async |session| upload::run(args, session).await)
        }
        Command::Download(args) => {
            let place = download::place(args.output.as_deref(), &args.name);
            let frame = Frame {
                stdout_is_taken: place == download::Place::Stdout,
                on_interrupt: matches!(place, download::Place::File(_))
                    .then(|| "what has arrived is kept; the same command goes on from there".to_owned()),
                ..frame(&args.client)
            };
            frame.run(async |session| download::run(args, session).await)
        }
        Command::Status(args) => frame(&args.client).run(async |session| status::run(args, session).await),
        Command::Watch(args) => frame(&args.client).run(async |session| watch::run(args, session).await),
        Command::Health(args) => frame(&args.client).run(async |session| health::run(session).await),
        Command::Serve(args) => serve::run(before.on_server(args.settings)),
        Command::Decrypt(args) => decrypt::run(args, &before),
        Command::Verify(args) => verify::run(args, &before),
        Command::Rekey(args) => rekey::run(args, &before),
        Command::Import(args) => import::run(args, &before),
        Command::Config(args) => config::run(&before.on_server(args.settings), args.json || before.json),
        Command::Completions(args) => completions::run(args.shell),
    }
}
