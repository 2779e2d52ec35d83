//! The command line as it is typed. Nothing is decided here: what is meant is resolved in `cli::options`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Flags, StorageFlags, value};
use crate::domain::{FileName, Priority};

/// Fast, resumable, verified file transfer: the server and its clients.
#[derive(Debug, Parser)]
#[command(name = "sft", version, max_term_width = 110, after_help = AFTER_HELP)]
pub struct Cli {
    /// Options of the client commands, before the command.
    #[command(flatten)]
    pub client: ClientOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
The options --server, --port, --api-key, --json and --quiet belong to the client commands, and may stand before or after them.
Data goes to standard output, everything else to standard error. With --json, standard output holds exactly one JSON document,
which has \"success\": false, \"error\" and \"code\" if something went wrong.
Exit status: 0 done, 1 failed or interrupted, 2 wrong usage.";

/// What `sft` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files, going on where an earlier upload has stopped; the server publishes what arrived whole.
    Upload(UploadArgs),
    /// Fetch a file, going on where an earlier download has stopped, and verify it.
    Download(DownloadArgs),
    /// Show transfers and the queue, or what is known about one file.
    Status(StatusArgs),
    /// Watch transfers while they run, until interrupted; with --json a line for each state.
    Watch(WatchArgs),
    /// Ask the server whether it lives.
    Health(HealthArgs),
    /// Run the server.
    Serve(ServeArgs),
    /// Give the content of a sealed file back, without a server.
    Decrypt(DecryptArgs),
    /// Compare the files of a storage directory with their recorded SHA-256, without a server.
    Verify(VerifyArgs),
    /// Seal anew, under ENCRYPTION_KEY, what an old key has sealed, without a server.
    Rekey(RekeyArgs),
    /// Take over the directory and the status file of an older server, without a server.
    Import(ImportArgs),
    /// Print the server's settings that are in force, and where each comes from; secrets are masked.
    Config(ConfigArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

/// Options that all client commands have. Of one that stands both before and after the command, the one after it counts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Client options")]
pub struct ClientOptions {
    /// The server: a host, host:port or URL [env: SFT_SERVER] [default: 127.0.0.1]
    #[arg(long, value_name = "HOST|URL")]
    pub server: Option<String>,
    /// The server's port; wins over one in --server [default: 8080, or the URL's]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The key to show to the server [env: API_KEY, which other users of this machine cannot see]
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// No progress bar, no notes, no summary: only data and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// `sft upload`
#[derive(Debug, Args)]
#[command(after_help = UPLOAD_HELP)]
pub struct UploadArgs {
    /// The files to send, and directories, of which every regular file is
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// The name of a single file on the server [default: its name here]
    #[arg(long, value_name = "NAME")]
    pub filename: Option<FileName>,
    /// How urgent it is, from 0 to 10 (first)
    #[arg(long, value_name = "N", default_value = "0")]
    pub priority: Priority,
    /// Have the server encrypt it at rest
    #[arg(long)]
    pub encrypt: bool,
    /// How many times to try again what can get better, after 1, 2, 4, 8, 16, 16, … seconds
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retry: u32,
    /// Send small files in chunks as well, not only those of more than 5 MiB
    #[arg(long)]
    pub chunked: bool,
    /// Send every file in one request
    #[arg(long, conflicts_with_all = ["chunked", "chunk_size"])]
    pub whole: bool,
    /// The size of a chunk, such as 1048576 or 8MiB [default: what suits the network and the file]
    #[arg(long, value_name = "BYTES", value_parser = chunk_size)]
    pub chunk_size: Option<u64>,
    /// How many chunks, or small files, are on their way at once, from 1 to 8 [default: 4; of chunks more or fewer as they get on]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub connections: Option<u8>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

fn chunk_size(text: &str) -> Result<u64, &'static str> {
    value::size(text).filter(|size| *size > 0).ok_or("takes a number of bytes, such as 1048576 or 8MiB")
}

/// `sft download`
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The file's name on the server
    #[arg(value_name = "NAME")]
    pub name: FileName,
    /// Where to put it: a file (replaced once the new one is whole), a directory, or - for standard output
    /// [default: NAME in the current directory]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// How many times to try again what can get better, after 1, 2, 4, 8, 16, 16, … seconds
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retry: u32,
    /// How many connections fetch a file of more than 4 MiB, from 1 to 8
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub connections: u8,
    /// Fetch the file as it is stored, encrypted if it is
    #[arg(long)]
    pub no_decrypt: bool,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// `sft status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only the latest transfer of this file, in full
    #[arg(long, value_name = "NAME")]
    pub file: Option<FileName>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// `sft watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only the transfers of this file
    #[arg(value_name = "NAME")]
    pub name: Option<FileName>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// `sft health`
#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// `sft serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// Options that all commands have which work on a storage directory without a server.
#[derive(Debug, Clone, Args)]
pub struct OfflineOptions {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// No progress bar, no notes, no summary: only data and errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub(super) settings: StorageFlags,
}

/// `sft decrypt`
#[derive(Debug, Args)]
#[command(after_help = DECRYPT_HELP)]
pub struct DecryptArgs {
    /// A container, as `sft download --no-decrypt` or UPLOAD_DIR/.sft/encrypted has it, or a file in the older format
    pub file: PathBuf,
    /// Where to put the content: a file that must not be there yet, a directory, or - for standard output
    /// [default: FILE without .sealed or .enc; else FILE.decrypted]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Try the key in this file first, such as a copy of UPLOAD_DIR/.sft/secret.key
    #[arg(long, value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) offline: OfflineOptions,
}

/// `sft verify`
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub struct VerifyArgs {
    /// Only these files [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<FileName>,
    #[command(flatten)]
    pub(super) offline: OfflineOptions,
}

/// `sft rekey`
#[derive(Debug, Args)]
#[command(after_help = REKEY_HELP)]
pub struct RekeyArgs {
    #[command(flatten)]
    pub(super) offline: OfflineOptions,
}

/// `sft import`
#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// The older server's storage directory, with encrypted/ in it; it is only read
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The older server's status file, of version "1.0"; it is only read
    #[arg(long, value_name = "FILE")]
    pub status: PathBuf,
    /// Read and report everything, write nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub(super) offline: OfflineOptions,
}

const UPLOAD_HELP: &str = "\
A file that is sent in chunks and interrupted goes on where it stopped when the same command is run again, as long as the file is the same
and the server has kept the chunks. A file in a directory is sent under its path there, with _ for /: a/b.txt becomes a_b.txt. Two
files that would get one name are an error before anything is sent. Links in directories are left out. One file that fails
does not keep the others; the exit status is 1 then.";

const IMPORT_HELP: &str = "\
Every file is compared with its recorded SHA-256; encrypted ones are opened with ENCRYPTION_KEY or ENCRYPTION_KEY_OLD and sealed anew.
Files go to UPLOAD_DIR, records with their times, clients and priorities to LOG_FILE. What can't be taken has a line and makes the exit
status 1; all else is taken. The command can be killed and run again at any moment: what has been taken is not taken twice.";

const REKEY_HELP: &str = "\
Set ENCRYPTION_KEY to the new key and put the one before into ENCRYPTION_KEY_OLD (one that was made, in UPLOAD_DIR/.sft/secret.key, is
found there). Everything is compared with its recorded SHA-256 before the old container goes. The command can be killed and run
again at any moment. A file that can't be done stays as it was, has a line, and makes the exit status 1.";

const VERIFY_HELP: &str = "\
A line for each file that is bad: damaged, missing, unknown_key (sealed under a key that is not there), not_recorded (nothing says what
it should be) or unreadable. Exit status 1 if there is one. Nothing is changed. A server must not be running on the directory; it
looks after its files by itself with SCRUB_INTERVAL.";

const DECRYPT_HELP: &str = "\
The keys are those of the server: ENCRYPTION_KEY, ENCRYPTION_KEY_OLD and UPLOAD_DIR/.sft/secret.key. Nothing is written if FILE is
damaged, has been tampered with, or was sealed under another key; no file is ever overwritten.";

/// `sft config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// `sft completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn old_scripts_and_readable_sizes_are_understood() {
        for (line, expected) in [
            ("sft upload a", None),
            ("sft upload a --chunked --chunk-size 1048576", Some(1 << 20)),
            ("sft upload a b c --chunk-size 8MiB --connections 8", Some(8 << 20)),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Command::Upload(args) = cli.command else { panic!("{line}") };
            assert_eq!(args.chunk_size, expected, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "sft",
            "sft frobnicate",
            "sft upload",
            "sft upload a --priority 11",
            "sft upload a --retry -1",
            "sft upload a --filename ..",
            "sft upload a --port 0",
            "sft upload a --chunk-size 0",
            "sft upload a --chunk-size many",
            "sft upload a --whole --chunked",
            "sft upload a --connections 0",
            "sft upload a --connections 9",
            "sft download ..",
            "sft watch ..",
            "sft completions cobol",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
