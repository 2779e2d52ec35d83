//! Every setting: its names, its default, what it takes.

/// One setting as it is documented.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The key in the file; the flag is the same with dashes.
    pub key: &'static str,
    /// The environment variables, the first that is set counts.
    pub env: &'static [&'static str],
    /// In force where nothing is said.
    pub default: &'static str,
    /// What it takes, for a person.
    pub takes: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Masked wherever it is shown.
    pub secret: bool,
}

const fn spec(
    key: &'static str,
    env: &'static [&'static str],
    default: &'static str,
    takes: &'static str,
    help: &'static str,
) -> Spec {
    Spec { key, env, default, takes, help, secret: false }
}

const SIZE: &str = "a number of bytes, also with KiB, MiB, GiB, TiB, KB, MB, GB or TB";
const SIZE_OR_NONE: &str =
    "a number of bytes, also with KiB, MiB, GiB, TiB, KB, MB, GB or TB; 0 for what fits";
const DURATION: &str = "a number of seconds, also with s, m or h";
const COUNT: &str = "a whole number from 1";

/// All settings, in the order in which they are shown.
pub const SPECS: &[Spec] = &[
    spec("server_host", &["SERVER_HOST"], "0.0.0.0", "an IP address or a host name", "Address to listen on"),
    spec(
        "port",
        &["PORT", "SERVER_PORT"],
        "8080",
        "a port from 0 (any that is free) to 65535",
        "Port to listen on",
    ),
    spec("upload_dir", &["UPLOAD_DIR"], "storage", "a directory", "Where files are kept"),
    spec("log_file", &["LOG_FILE"], "transfer_status.json", "a file", "The status file"),
    spec(
        "durability",
        &["DURABILITY"],
        "power",
        "power or process",
        "What an acknowledgement survives: loss of power, or only the end of the process",
    ),
    spec(
        "max_file_size",
        &["MAX_FILE_SIZE"],
        "104857600",
        SIZE,
        "The largest file that one request may bring",
    ),
    spec(
        "max_resumable_size",
        &["MAX_RESUMABLE_SIZE"],
        "0",
        SIZE_OR_NONE,
        "The largest file that an upload in pieces may bring",
    ),
    spec("max_chunks", &["MAX_CHUNKS"], "65536", COUNT, "The most numbered chunks that a file may come in"),
    spec(
        "max_unfinished",
        &["MAX_UNFINISHED"],
        "1000",
        COUNT,
        "Uploads that may be unfinished and wait to be resumed, in all",
    ),
    spec(
        "max_unfinished_per_client",
        &["MAX_UNFINISHED_PER_CLIENT"],
        "100",
        COUNT,
        "Uploads that may be unfinished and wait to be resumed, of one address",
    ),
    spec(
        "max_reserved",
        &["MAX_RESERVED"],
        "0",
        SIZE_OR_NONE,
        "Bytes that unfinished uploads may have announced and not yet sent, in all",
    ),
    spec(
        "upload_expiry",
        &["UPLOAD_EXPIRY"],
        "24h",
        DURATION,
        "How long an unfinished upload is kept without a byte",
    ),
    spec(
        "min_free_space",
        &["MIN_FREE_SPACE"],
        "64MiB",
        SIZE,
        "Uploads that would leave less free are refused",
    ),
    spec(
        "history_limit",
        &["HISTORY_LIMIT"],
        "100000",
        COUNT,
        "Ended transfers that are remembered beyond those whose file stands",
    ),
    spec(
        "journal_size",
        &["JOURNAL_SIZE"],
        "1MiB",
        SIZE,
        "The status file is rewritten when its journal is larger than this and than the file itself",
    ),
    spec(
        "encryption",
        &["ENCRYPTION"],
        "optional",
        "optional, default-on or required",
        "Which files are sealed: those that ask for it, all but those that ask not to be, or all",
    ),
    Spec {
        key: "encryption_key",
        env: &["ENCRYPTION_KEY"],
        default: "",
        takes: "at least 16 bytes without spaces at the ends, best 32 random ones as hexadecimal digits",
        help: "The key that files are sealed with (nothing: one is made when it is first needed, and kept in UPLOAD_DIR/.sft/secret.key)",
        secret: true,
    },
    Spec {
        key: "encryption_key_old",
        env: &["ENCRYPTION_KEY_OLD"],
        default: "",
        takes: "keys of at least 16 bytes, separated by commas, or by line ends if a key has a comma",
        help: "Earlier keys, which still open what they sealed",
        secret: true,
    },
    spec(
        "scrub_interval",
        &["SCRUB_INTERVAL"],
        "0",
        "a number of seconds, also with s, m, h or d; 0 for never",
        "How often every file is read and compared with its SHA-256, from one beginning to the next",
    ),
    spec("scrub_rate", &["SCRUB_RATE"], "20MiB", SIZE, "How many bytes a second that may read"),
    spec("auth", &["AUTH"], "documented", "documented or all", "Which requests need an API key"),
    Spec {
        key: "api_keys",
        env: &["API_KEYS"],
        default: "",
        takes: "keys of at least 16 characters, separated by commas",
        help: "API keys that may do everything",
        secret: true,
    },
    spec(
        "cors_origins",
        &["CORS_ORIGINS"],
        "localhost",
        "localhost (every port of localhost and 127.0.0.1), *, or origins such as https://files.example.com, separated by commas",
        "Web pages that may use the server",
    ),
    spec(
        "trusted_proxies",
        &["TRUSTED_PROXIES"],
        "",
        "IP addresses or networks such as 10.0.0.0/8, separated by commas",
        "Peers whose X-Forwarded-For and Forwarded are believed",
    ),
    spec(
        "max_connections",
        &["MAX_CONNECTIONS"],
        "10000",
        COUNT,
        "Connections at once; more wait to be accepted",
    ),
    spec(
        "header_timeout",
        &["HEADER_TIMEOUT"],
        "30",
        DURATION,
        "How long a connection may take for a request's header, or stay idle between two requests",
    ),
    spec("idle_timeout", &["IDLE_TIMEOUT"], "60", DURATION, "How long a running transfer may stand still"),
    spec(
        "shutdown_grace",
        &["SHUTDOWN_GRACE"],
        "30",
        DURATION,
        "How long running transfers may go on after SIGTERM or SIGINT",
    ),
    spec("log_level", &["LOG_LEVEL"], "INFO", "ERROR, WARNING, INFO, DEBUG or TRACE", "How much is logged"),
    spec("log_format", &["LOG_FORMAT"], "text", "text or json", "How it is logged"),
    spec(
        "server_log_file",
        &["SERVER_LOG_FILE"],
        "",
        "a file (nothing: standard error)",
        "Where it is logged",
    ),
];
