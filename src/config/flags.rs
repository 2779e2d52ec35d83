//! The settings as flags of the command line, made from the table of settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{SPECS, Spec};

/// The settings that were given as flags. Their texts are read later, together with those from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The TOML file.
    pub config: Option<PathBuf>,
    /// Settings by key.
    pub values: BTreeMap<&'static str, String>,
}

/// The settings that concern a storage directory, for the commands that work on one without a server.
#[derive(Debug, Clone, Default)]
pub struct StorageFlags(pub Flags);

/// Their keys.
const STORAGE: [&str; 9] = [
    "upload_dir",
    "log_file",
    "durability",
    "min_free_space",
    "history_limit",
    "journal_size",
    "encryption",
    "encryption_key",
    "encryption_key_old",
];

fn augment<'s>(command: Command, specs: impl Iterator<Item = &'s Spec>) -> Command {
    let config =
        Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
            format!(
                "TOML file with settings [default: {} if there is one] [env: SFT_CONFIG]",
                super::DEFAULT_FILE
            ),
        );
    specs.fold(command.arg(config), |command, spec| {
        let default =
            if spec.default.is_empty() { String::new() } else { format!(" [default: {}]", spec.default) };
        command.arg(
            Arg::new(spec.key)
                .long(spec.key.replace('_', "-"))
                .value_name(spec.key.to_uppercase())
                .help(format!("{}: {}{default} [env: {}]", spec.help, spec.takes, spec.env.join(", "))),
        )
    })
}

fn read(matches: &ArgMatches, specs: impl Iterator<Item = &'static Spec>) -> Flags {
    let values = specs.filter_map(|spec| Some((spec.key, matches.get_one::<String>(spec.key)?.clone())));
    Flags { config: matches.get_one::<PathBuf>("config").cloned(), values: values.collect() }
}

fn storage_specs() -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(|spec| STORAGE.contains(&spec.key))
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        augment(command, SPECS.iter())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(read(matches, SPECS.iter()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for StorageFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, storage_specs())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for StorageFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(read(matches, storage_specs())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// Sets a setting as if by its flag.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.values.insert(key, value.into());
    }
}
