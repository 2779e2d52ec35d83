//! `sft download`

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::args::DownloadArgs;
use super::failure::Failure;
use super::output::{bytes, printable};
use super::progress::Progress;
use super::session::Session;
use crate::client::{Destination, Download, Retries};
use crate::domain::FileName;

/// What `--output` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file, with its `.part` beside it.
    File(PathBuf),
    /// A device or a pipe, which must not be replaced by a file.
    Device(PathBuf),
    /// `-`
    Stdout,
}

/// Decides where a download goes. The name is the one that the user gave: what a server's header says has no say in it.
pub(super) fn place(output: Option<&Path>, name: &FileName) -> Place {
    let Some(path) = output else { return Place::File(PathBuf::from(name.as_str())) };
    if path == Path::new("-") {
        return Place::Stdout;
    }
    let ends_as_directory = path
        .as_os_str()
        .as_encoded_bytes()
        .last()
        .is_some_and(|last| std::path::is_separator(char::from(*last)));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Place::File(path.join(name.as_str())),
        Ok(metadata) if !metadata.is_file() => Place::Device(path.to_owned()),
        // Not there: the error is then that the directory is missing, and no file takes its name.
        Err(_) if ends_as_directory => Place::File(path.join(name.as_str())),
        _ => Place::File(path.to_owned()),
    }
}

pub(super) async fn run(args: DownloadArgs, session: &Session) -> Result<(), Failure> {
    let to = match place(args.output.as_deref(), &args.name) {
        Place::File(path) => Destination::File(path),
        Place::Stdout => Destination::Stream(Box::new(io::stdout())),
        Place::Device(path) => {
            let device = OpenOptions::new().write(true).open(&path).map_err(|error| {
                Failure::new("cannot_write", format!("cannot write {}: {error}", path.display()))
            })?;
            Destination::Stream(Box::new(device))
        }
    };
    let download = Download {
        name: args.name.clone(),
        to,
        decrypt: !args.no_decrypt,
        retries: Retries::new(args.retry),
        connections: usize::from(args.connections),
    };
    let began = Instant::now();
    let progress = Progress::new(session.output);
    let got = session.client.download(download, &progress.observer()).await?;
    drop(progress);
    if !got.verified {
        session.output.note("note: the server stated no SHA-256 to compare the file with");
    }
    let seconds = began.elapsed().as_secs_f64();
    let fetched = got.size - got.resumed_from;
    let resumed = match got.resumed_from {
        0 => String::new(),
        left => format!(", after {} that were there", bytes(left)),
    };
    let text = format!(
        "downloaded {}{}: {} in {seconds:.1} s ({}/s){resumed}\nSHA-256 {}{}",
        printable(args.name.as_str()),
        got.path.as_ref().map(|path| format!(" to {}", path.display())).unwrap_or_default(),
        bytes(fetched),
        bytes((fetched as f64 / seconds.max(0.001)) as u64),
        got.digest,
        if got.verified { " (verified)" } else { "" },
    );
    let json = json!({
        "success": true,
        "filename": args.name,
        "path": got.path.as_ref().map(|path| path.to_string_lossy()),
        "size": got.size,
        "hash": got.digest,
        "verified": got.verified,
        "resumed_from": got.resumed_from,
    });
    session.output.summary(&text, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_the_users_choice_and_never_a_directory_above() {
        let directory = tempfile::tempdir().unwrap();
        let name = FileName::clean("../../etc/passwd").unwrap();
        let file = |path: PathBuf| Place::File(path);
        assert_eq!(place(None, &name), file("passwd".into()));
        assert_eq!(place(Some(directory.path()), &name), file(directory.path().join("passwd")));
        assert_eq!(place(Some(Path::new("absent/")), &name), file("absent/passwd".into()));
        assert_eq!(place(Some(Path::new("other.txt")), &name), file("other.txt".into()));
        assert_eq!(place(Some(Path::new("-")), &name), Place::Stdout);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let name = FileName::clean("a").unwrap();
        assert_eq!(place(Some(Path::new("/dev/null")), &name), Place::Device("/dev/null".into()));
    }
}
