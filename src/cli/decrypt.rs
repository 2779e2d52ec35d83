//! `sft decrypt`

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use zeroize::Zeroizing;

use super::args::{ClientOptions, DecryptArgs};
use super::failure::Failure;
use super::offline::{self, Offline};
use super::output::{bytes, printable};
use crate::config::Settings;
use crate::crypto::{Keyring, OpenError};
use crate::services::decrypt::{self, DecryptError, Decrypted, Format};
use crate::services::keys::Keys;
use crate::store::files::OpenFile;
use crate::store::{Layout, atomic};

/// Where the content goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    /// A device or a pipe.
    Device(PathBuf),
    Stdout,
}

/// Runs `sft decrypt`.
pub(super) fn run(args: DecryptArgs, before: &ClientOptions) -> ExitCode {
    let place = place(&args.file, args.output.as_deref());
    let options = args.offline.clone();
    offline::run(before, options, place == Place::Stdout, async |offline| decrypt(args, place, offline).await)
}

async fn decrypt(args: DecryptArgs, place: Place, offline: Offline) -> Result<(), Failure> {
    let keyring = keyring(&offline.settings, args.encryption_key_file.as_deref())?;
    let shown = printable(&args.file.to_string_lossy());
    let cannot_read = |error: io::Error| Failure::new("cannot_read", format!("cannot read {shown}: {error}"));
    // A link is as good as the file: it is the user who names it.
    let sealed = args.file.canonicalize().and_then(|path| OpenFile::at(&path)).map_err(cannot_read)?;
    let to = match &place {
        Place::File(path) | Place::Device(path) => Some(path.clone()),
        Place::Stdout => None,
    };
    let stop = offline.stop.clone();
    let work = tokio::task::spawn_blocking(move || match place {
        Place::File(path) => decrypt::to_file(&sealed, &keyring, &path, &stop),
        Place::Device(path) => {
            let device = OpenOptions::new().write(true).open(&path).map_err(DecryptError::Write)?;
            decrypt::to_stream(&sealed, &keyring, device, &stop)
        }
        Place::Stdout => decrypt::to_stream(&sealed, &keyring, io::stdout().lock(), &stop),
    });
    let done = work.await.map_err(|error| Failure::new("internal_error", error.to_string()))?;
    let Decrypted { format, size, digest } = done.map_err(|error| failure(&shown, error))?;
    let format = match format {
        Format::Container => "container",
        Format::Older => "older",
    };
    let into = to.as_deref().map(|path| format!(" to {}", printable(&path.to_string_lossy())));
    let text = format!("decrypted {shown}{}: {}\nSHA-256 {digest}", into.unwrap_or_default(), bytes(size));
    let json = json!({
        "success": true,
        "file": args.file.to_string_lossy(),
        "path": to.as_ref().map(|path| path.to_string_lossy()),
        "format": format,
        "size": size,
        "hash": digest,
    });
    offline.output.summary(&text, &json)
}

/// Those of the settings, and the one in the file, which is tried first.
fn keyring(settings: &Settings, file: Option<&Path>) -> Result<Keyring, Failure> {
    let unusable = |why: String| Failure::usage(format!("cannot use the encryption key: {why}"));
    let layout = Layout::new(settings.upload_dir.clone(), settings.log_file.clone());
    let set = settings.encryption_key.as_ref().map(|key| key.to_string()).map(Zeroizing::new);
    let made = Keys::made(&layout.secret_key()).map_err(|error| unusable(error.to_string()))?;
    let given = file.map(|path| {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| unusable(format!("{}: {error}", path.display())))?;
        Ok::<_, Failure>(Zeroizing::new(text.trim().to_owned()))
    });
    let keys = [given.transpose()?, set, made].into_iter().flatten();
    let keys: Vec<Zeroizing<String>> = keys.chain(settings.encryption_key_old.iter().cloned()).collect();
    let Some((first, others)) = keys.split_first() else {
        return Err(Failure::new("no_key", "there is no key to open it with")
            .with_hint("set ENCRYPTION_KEY, or name the storage directory of the server with --upload-dir"));
    };
    Keyring::new(first.as_str(), others.iter().map(|key| key.as_str()))
        .map_err(|error| unusable(error.to_string()))
}

fn place(file: &Path, output: Option<&Path>) -> Place {
    let plain = plain_name(file);
    let Some(path) = output else { return Place::File(plain) };
    if path == Path::new("-") {
        return Place::Stdout;
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Place::File(path.join(plain.file_name().unwrap_or_default())),
        Ok(metadata) if !metadata.is_file() => Place::Device(path.to_owned()),
        _ => Place::File(path.to_owned()),
    }
}

/// `a.txt.sealed` and `a.txt.enc` become `a.txt`, all others `NAME.decrypted`.
fn plain_name(file: &Path) -> PathBuf {
    let is_suffix = |extension: &std::ffi::OsStr| extension == "sealed" || extension == "enc";
    match file.extension() {
        Some(extension) if is_suffix(extension) => file.with_extension(""),
        _ => atomic::with_suffix(file, ".decrypted"),
    }
}

fn failure(shown: &str, error: DecryptError) -> Failure {
    let text = format!("{shown}: {error}");
    match error {
        DecryptError::Open(OpenError::UnknownKey(_)) => {
            Failure::new("unknown_key", text).with_hint("put the key that sealed it into ENCRYPTION_KEY_OLD")
        }
        DecryptError::Open(_) | DecryptError::Older(_) => Failure::new("decryption_failed", text),
        DecryptError::Read(_) => Failure::new("cannot_read", text),
        DecryptError::Exists(_) => {
            Failure::new("exists", error.to_string()).with_hint("choose another place with --output")
        }
        DecryptError::Write(error) => Failure::of_writing(&error),
        DecryptError::Stopped => Failure::interrupted(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_beside_the_sealed_file_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        for (file, plain) in [
            ("d/a.txt.sealed", "d/a.txt"),
            ("a.enc", "a"),
            ("a.txt", "a.txt.decrypted"),
            (".sealed", ".sealed.decrypted"),
        ] {
            assert_eq!(place(Path::new(file), None), Place::File(plain.into()), "{file}");
        }
        let inside = Place::File(directory.path().join("a"));
        assert_eq!(place(Path::new("d/a.sealed"), Some(directory.path())), inside);
        assert_eq!(place(Path::new("a"), Some(Path::new("-"))), Place::Stdout);
    }
}
