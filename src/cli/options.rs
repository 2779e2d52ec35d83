//! From what was typed, and the environment, to what is meant.

use super::args::ClientOptions;
use crate::client::{InvalidServer, ServerUrl};

/// The options of a client command, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) server: ServerUrl,
    pub(super) api_key: Option<String>,
}

/// What stands after the command wins over what stands before it, and both over the environment, of which an empty variable
/// is none.
///
/// # Errors
/// [`InvalidServer`] if the server's address is none.
pub(super) fn resolve(
    before: ClientOptions,
    after: ClientOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Resolved, InvalidServer> {
    let variable = |name| environment(name).filter(|value| !value.trim().is_empty());
    let server = after.server.or(before.server).or_else(|| variable("SFT_SERVER"));
    let api_key = after.api_key.or(before.api_key).or_else(|| variable("API_KEY"));
    let server = ServerUrl::parse(server.as_deref().unwrap_or("127.0.0.1"), after.port.or(before.port))?;
    // `--api-key "$KEY"` without a KEY: none.
    let api_key = api_key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    Ok(Resolved { server, api_key })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn resolved(line: &str, environment: &[(&str, &str)]) -> (String, Option<String>) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Command::Health(args) = cli.command else { panic!("{line}") };
        let variable = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let options = resolve(cli.client, args.client, variable).unwrap();
        (options.server.to_string(), options.api_key)
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let environment = [("SFT_SERVER", "http://env:1/p"), ("API_KEY", "from-env")];
        let empty = [("SFT_SERVER", ""), ("API_KEY", " ")];
        for (line, environment, server, key) in [
            ("sft health", &[][..], "http://127.0.0.1:8080", None),
            ("sft health", &empty[..], "http://127.0.0.1:8080", None),
            ("sft health", &environment[..], "http://env:1/p", Some("from-env")),
            ("sft health --port 2", &environment[..], "http://env:2/p", Some("from-env")),
            ("sft --server h --port 9 --api-key k health", &environment[..], "http://h:9", Some("k")),
            ("sft health --server h --port 9 --api-key k", &environment[..], "http://h:9", Some("k")),
            ("sft --server a --port 9 health --server b", &[][..], "http://b:9", None),
            ("sft --api-key= health", &environment[..], "http://env:1/p", None),
            ("sft --server=https://h/x health", &[][..], "https://h/x", None),
        ] {
            assert_eq!(resolved(line, environment), (server.to_owned(), key.map(str::to_owned)), "{line}");
        }
    }
}
