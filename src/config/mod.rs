//! Settings: flags win over the environment, it over the file, it over the defaults. Validated once, passed down.

mod flags;
mod spec;
pub mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

pub use self::flags::{Flags, StorageFlags};
pub use self::spec::{SPECS, Spec};
use crate::crypto::MIN_KEY_LEN;
use crate::services::access::Auth;
use crate::services::uploads::Sealing;
use crate::store::Durability;

/// Read where no other file is named, if it is there.
pub const DEFAULT_FILE: &str = "config/default.toml";

/// Everything that can be set, validated.
#[derive(Clone)]
pub struct Settings {
    /// Address or name to listen on.
    pub server_host: String,
    /// Port to listen on; 0: any that is free.
    pub port: u16,
    /// The storage directory.
    pub upload_dir: PathBuf,
    /// The status file.
    pub log_file: PathBuf,
    /// What an acknowledgement survives.
    pub durability: Durability,
    /// Bytes that one request may bring.
    pub max_file_size: u64,
    /// Bytes that an upload in pieces may bring; `None`: what fits.
    pub max_resumable_size: Option<u64>,
    /// Chunks of an upload.
    pub max_chunks: u32,
    /// Unfinished uploads in all.
    pub max_unfinished: usize,
    /// Unfinished uploads of one address.
    pub max_unfinished_per_client: usize,
    /// Bytes that unfinished uploads may still have to come; `None`: what fits.
    pub max_reserved: Option<u64>,
    /// How long an unfinished upload is kept without a byte.
    pub upload_expiry: Duration,
    /// Bytes that stay free.
    pub min_free_space: u64,
    /// Ended transfers that are remembered.
    pub history_limit: usize,
    /// Bytes that the journal of the status may always have.
    pub journal_size: u64,
    /// Which files are sealed.
    pub encryption: Sealing,
    /// What they are sealed with; `None`: a key that is made.
    pub encryption_key: Option<Zeroizing<String>>,
    /// What others were sealed with.
    pub encryption_key_old: Vec<Zeroizing<String>>,
    /// From the beginning of one scrub to that of the next; `None`: there is none.
    pub scrub_interval: Option<Duration>,
    /// Bytes a second that it reads.
    pub scrub_rate: u64,
    /// Which requests need a key.
    pub auth: Auth,
    /// Keys that may do everything.
    pub api_keys: Vec<String>,
    /// Web pages that may use the server.
    pub cors_origins: CorsOrigins,
    /// Peers whose word on the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once.
    pub max_connections: usize,
    /// For a request's header.
    pub header_timeout: Duration,
    /// For a transfer that stands still.
    pub idle_timeout: Duration,
    /// For running transfers when the server stops.
    pub shutdown_grace: Duration,
    /// How much is logged.
    pub log_level: tracing::Level,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where it is logged; `None`: standard error.
    pub server_log_file: Option<PathBuf>,
    shown: Vec<Shown>,
}

/// Which origins a browser lets use the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every port of `localhost` and `127.0.0.1`.
    Localhost,
    /// Everyone.
    Any,
    /// These.
    Listed(Vec<String>),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A key of the file.
    File(PathBuf),
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Why the settings can't be used: one line.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value that is not taken.
    #[error("{key}: got {got:?} ({source_}), takes {takes}")]
    Invalid {
        /// Which setting.
        key: &'static str,
        /// What it got; masked if it is a secret.
        got: String,
        /// From where.
        source_: Source,
        /// What it takes.
        takes: &'static str,
    },
    /// A key of the file that is none.
    #[error("{}: there is no setting {key:?}{}", .path.display(), .like)]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// `; did you mean …?`
        like: String,
    },
    /// The file can't be read.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, in one line.
        why: String,
    },
    /// Two settings that don't go together.
    #[error("{0}")]
    Together(&'static str),
}

#[derive(Clone)]
struct Shown {
    spec: &'static Spec,
    value: String,
    source: Source,
}

type Raw = BTreeMap<&'static str, (String, Source)>;

impl Settings {
    /// Reads the settings from everywhere. `environment` looks a variable up.
    ///
    /// # Errors
    /// [`SettingsError`], for the first one that is wrong.
    pub fn load(flags: &Flags, environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut raw: Raw =
            SPECS.iter().map(|spec| (spec.key, (spec.default.to_owned(), Source::Default))).collect();
        let named = flags.config.clone().or_else(|| environment("SFT_CONFIG").map(PathBuf::from));
        let default = Path::new(DEFAULT_FILE);
        match named {
            Some(path) => read_file(&path, &mut raw)?,
            None if default.is_file() => read_file(default, &mut raw)?,
            None => {}
        }
        for spec in SPECS {
            let set = spec.env.iter().find_map(|name| Some((environment(name)?, *name)));
            // An empty variable is how Docker and shells say "not set".
            if let Some((value, name)) = set.filter(|(value, _)| !value.trim().is_empty()) {
                raw.insert(spec.key, (value, Source::Environment(name)));
            }
        }
        for (key, value) in &flags.values {
            raw.insert(key, (value.clone(), Source::Flag));
        }
        Self::validate(&raw)
    }

    fn validate(raw: &Raw) -> Result<Self, SettingsError> {
        let settings = Self {
            server_host: take(raw, "server_host", |text| {
                (!text.trim().is_empty() && !text.contains(['/', ' '])).then(|| text.trim().to_owned())
            })?,
            port: take(raw, "port", |text| text.trim().parse().ok())?,
            upload_dir: take(raw, "upload_dir", path)?,
            log_file: take(raw, "log_file", |text| path(text).filter(|path| path.file_name().is_some()))?,
            durability: take(raw, "durability", choice)?,
            max_file_size: take(raw, "max_file_size", |text| value::size(text).filter(|size| *size > 0))?,
            max_resumable_size: take(raw, "max_resumable_size", size_or_none)?,
            max_chunks: take(raw, "max_chunks", |text| text.trim().parse().ok().filter(|count| *count > 0))?,
            max_unfinished: take(raw, "max_unfinished", count)?,
            max_unfinished_per_client: take(raw, "max_unfinished_per_client", count)?,
            max_reserved: take(raw, "max_reserved", size_or_none)?,
            upload_expiry: take(raw, "upload_expiry", value::duration)?,
            min_free_space: take(raw, "min_free_space", value::size)?,
            history_limit: take(raw, "history_limit", count)?,
            journal_size: take(raw, "journal_size", value::size)?,
            encryption: take(raw, "encryption", choice)?,
            encryption_key: take(raw, "encryption_key", |text| {
                let key = (!text.trim().is_empty()).then(|| Zeroizing::new(text.to_owned()));
                // As given; but what a list of old keys would lose can't be part of one.
                let is_good =
                    |key: &Zeroizing<String>| key.len() >= MIN_KEY_LEN && key.trim() == key.as_str();
                key.as_ref().is_none_or(is_good).then_some(key)
            })?,
            encryption_key_old: take(raw, "encryption_key_old", |text| {
                let keys: Vec<_> = value::lines(text).map(|key| Zeroizing::new(key.to_owned())).collect();
                keys.iter().all(|key| key.len() >= MIN_KEY_LEN).then_some(keys)
            })?,
            scrub_interval: take(raw, "scrub_interval", |text| match text.trim() {
                "0" => Some(None),
                text => value::duration(text).map(Some),
            })?,
            scrub_rate: take(raw, "scrub_rate", |text| value::size(text).filter(|rate| *rate > 0))?,
            auth: take(raw, "auth", choice)?,
            api_keys: take(raw, "api_keys", |text| {
                let keys: Vec<String> = value::list(text).map(str::to_owned).collect();
                keys.iter().all(|key| key.len() >= 16).then_some(keys)
            })?,
            cors_origins: take(raw, "cors_origins", |text| text.parse().ok())?,
            trusted_proxies: take(raw, "trusted_proxies", |text| value::list(text).map(network).collect())?,
            max_connections: take(raw, "max_connections", count)?,
            header_timeout: take(raw, "header_timeout", value::duration)?,
            idle_timeout: take(raw, "idle_timeout", value::duration)?,
            shutdown_grace: take(raw, "shutdown_grace", value::duration)?,
            log_level: take(raw, "log_level", log_level)?,
            log_format: take(raw, "log_format", |text| match text.trim().to_ascii_lowercase().as_str() {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            server_log_file: take(raw, "server_log_file", |text| Some(path(text)))?,
            shown: SPECS
                .iter()
                .filter_map(|spec| {
                    let (value, source) = raw.get(spec.key)?.clone();
                    Some(Shown { spec, value, source })
                })
                .collect(),
        };
        if settings.auth == Auth::All && settings.api_keys.is_empty() {
            return Err(SettingsError::Together("auth: \"all\" needs api_keys, or nobody could do anything"));
        }
        Ok(settings)
    }

    /// What is in force, as a TOML file with the source of each value; secrets are masked.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for Shown { spec, value, source } in &self.shown {
            let value = match (spec.secret, value.is_empty()) {
                (true, false) => "********",
                _ => value.trim(),
            };
            text += &format!("{} = {} # {source}\n", spec.key, toml::Value::from(value));
        }
        text
    }

    /// What is in force, as JSON: `{key: {value, source}}`; secrets are masked.
    pub fn to_json(&self) -> serde_json::Value {
        let shown = self.shown.iter().map(|Shown { spec, value, source }| {
            let value = if spec.secret && !value.is_empty() { "********" } else { value.trim() };
            (spec.key.to_owned(), serde_json::json!({"value": value, "source": source.to_string()}))
        });
        serde_json::Value::Object(shown.collect())
    }
}

fn take<T>(raw: &Raw, key: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, SettingsError> {
    let (text, source) = raw.get(key).map_or(("", &Source::Default), |(text, source)| (text, source));
    read(text).ok_or_else(|| {
        let spec = SPECS.iter().find(|spec| spec.key == key);
        let secret = spec.is_some_and(|spec| spec.secret);
        SettingsError::Invalid {
            key,
            got: if secret { "********".to_owned() } else { text.to_owned() },
            source_: source.clone(),
            takes: spec.map_or("something else", |spec| spec.takes),
        }
    })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

fn size_or_none(text: &str) -> Option<Option<u64>> {
    value::size(text).map(|size| (size > 0).then_some(size))
}

fn count(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|count| *count > 0)
}

fn choice<T: clap::ValueEnum>(text: &str) -> Option<T> {
    T::from_str(text.trim(), true).ok()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn log_level(text: &str) -> Option<tracing::Level> {
    match text.trim().to_ascii_uppercase().as_str() {
        // Python's names, which existing deployments use.
        "WARN" | "WARNING" => Some(tracing::Level::WARN),
        "ERROR" | "CRITICAL" => Some(tracing::Level::ERROR),
        "INFO" => Some(tracing::Level::INFO),
        "DEBUG" => Some(tracing::Level::DEBUG),
        "TRACE" => Some(tracing::Level::TRACE),
        _ => None,
    }
}

impl FromStr for CorsOrigins {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim() {
            "*" => Ok(Self::Any),
            "localhost" => Ok(Self::Localhost),
            text => {
                let origins: Vec<String> =
                    value::list(text).map(|origin| origin.trim_end_matches('/').to_owned()).collect();
                let is_origin = |origin: &String| {
                    origin.split_once("://").is_some_and(|(scheme, host)| {
                        matches!(scheme, "http" | "https")
                            && !host.is_empty()
                            && !host.contains(['/', '*', ' '])
                    })
                };
                (!origins.is_empty() && origins.iter().all(is_origin))
                    .then_some(Self::Listed(origins))
                    .ok_or(())
            }
        }
    }
}

fn read_file(path: &Path, raw: &mut Raw) -> Result<(), SettingsError> {
    let failed = |why: String| SettingsError::File { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        failed(format!("line {line}: {}", error.message()))
    })?;
    for (key, value) in table {
        let Some(spec) = SPECS.iter().find(|spec| spec.key == key) else {
            let like = SPECS
                .iter()
                .find(|spec| spec.key.replace('_', "") == key.to_lowercase().replace(['_', '-'], ""));
            let like = like.map_or(String::new(), |spec| format!("; did you mean {:?}?", spec.key));
            return Err(SettingsError::Unknown { path: path.to_owned(), key, like });
        };
        let text = plain(&value).ok_or_else(|| failed(format!("{key}: takes {}", spec.takes)))?;
        raw.insert(spec.key, (text, Source::File(path.to_owned())));
    }
    Ok(())
}

/// A TOML value as the text that a flag would have.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => Some(items.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests;
