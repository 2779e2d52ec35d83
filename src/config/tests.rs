use super::*;

fn load(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut set = Flags::default();
    for (key, value) in flags {
        set.set(key, *value);
    }
    let path = dir.path().join("sft.toml");
    crate::store::atomic::replace(&path, Durability::Process, |out| {
        std::io::Write::write_all(out, file.unwrap_or("").as_bytes())
    })
    .unwrap();
    set.config = Some(path);
    let environment =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::load(&set, environment)
        .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = load(&[], &[], None).unwrap();
    assert_eq!((settings.server_host.as_str(), settings.port), ("0.0.0.0", 8080));
    assert_eq!(settings.max_file_size, 104_857_600);
    assert_eq!(settings.log_file, Path::new("transfer_status.json"));
    assert_eq!(settings.durability, Durability::Power);
    assert_eq!(settings.cors_origins, CorsOrigins::Localhost);
    assert_eq!((settings.scrub_interval, settings.scrub_rate), (None, 20 << 20));
}

#[test]
fn the_scrub_is_off_or_has_an_interval() {
    let interval =
        |text| load(&[("scrub_interval", text)], &[], None).map(|settings| settings.scrub_interval);
    assert_eq!(interval("0"), Ok(None));
    assert_eq!(interval("7d"), Ok(Some(Duration::from_secs(7 * 86_400))));
    assert!(interval("often").is_err() && interval("").is_err());
    assert!(load(&[("scrub_rate", "0")], &[], None).is_err());
}

#[test]
fn flags_win_over_the_environment_it_over_the_file_it_over_defaults() {
    let file = Some("port = 1\nmax_file_size = \"1MiB\"\nlog_level = \"DEBUG\"");
    let environment = [("PORT", "2"), ("MAX_FILE_SIZE", "2MiB"), ("SERVER_PORT", "9")];
    let settings = load(&[("port", "3")], &environment, file).unwrap();
    assert_eq!(
        (settings.port, settings.max_file_size, settings.log_level),
        (3, 2 << 20, tracing::Level::DEBUG)
    );
    assert_eq!(load(&[], &[("SERVER_PORT", "9")], file).unwrap().port, 9);
    assert_eq!(load(&[], &[("SERVER_PORT", " ")], file).unwrap().port, 1, "an empty variable is none");
}

#[test]
fn a_bad_value_is_one_line_that_names_the_setting_what_it_got_and_what_it_takes() {
    for (flags, environment, file, line) in [
        (
            vec![],
            vec![("PORT", "http")],
            None,
            r#"port: got "http" (environment, PORT), takes a port from 0 (any that is free) to 65535"#,
        ),
        (
            vec![("durability", "maybe")],
            vec![],
            None,
            r#"durability: got "maybe" (flag), takes power or process"#,
        ),
        (
            vec![],
            vec![],
            Some("max_file_size = \"a lot\""),
            r#"max_file_size: got "a lot" (DIR/sft.toml), takes a number of bytes, also with KiB, MiB, GiB, TiB, KB, MB, GB or TB"#,
        ),
        (
            vec![],
            vec![("API_KEYS", "short")],
            None,
            r#"api_keys: got "********" (environment, API_KEYS), takes keys of at least 16 characters, separated by commas"#,
        ),
        (
            vec![],
            vec![("ENCRYPTION", "always")],
            None,
            r#"encryption: got "always" (environment, ENCRYPTION), takes optional, default-on or required"#,
        ),
        (
            vec![],
            vec![("ENCRYPTION_KEY", "fifteen bytes..")],
            None,
            r#"encryption_key: got "********" (environment, ENCRYPTION_KEY), takes at least 16 bytes without spaces at the ends, best 32 random ones as hexadecimal digits"#,
        ),
        (
            vec![],
            vec![("ENCRYPTION_KEY_OLD", "0123456789abcdef,short")],
            None,
            r#"encryption_key_old: got "********" (environment, ENCRYPTION_KEY_OLD), takes keys of at least 16 bytes, separated by commas, or by line ends if a key has a comma"#,
        ),
        (vec![], vec![("AUTH", "all")], None, r#"auth: "all" needs api_keys, or nobody could do anything"#),
        (
            vec![],
            vec![],
            Some("max_filesize = 1"),
            r#"DIR/sft.toml: there is no setting "max_filesize"; did you mean "max_file_size"?"#,
        ),
        (vec![], vec![], Some("a = 1\nport = ="), "DIR/sft.toml: line 2: "),
    ] {
        let error = load(&flags, &environment, file).err().unwrap_or_else(|| panic!("taken: {line}"));
        assert!(error.starts_with(line), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_shown_can_be_read_again_and_tells_no_secret() {
    let environment = [
        ("API_KEYS", "a-very-secret-key-1,a-very-secret-key-2"),
        ("ENCRYPTION_KEY", "another-secret-key-3"),
        ("ENCRYPTION_KEY_OLD", "old-secret-key-4"),
        ("CORS_ORIGINS", "https://a.example, http://b:3000/"),
    ];
    let settings = load(&[("upload_dir", "my \"files\"")], &environment, None).unwrap();
    let text = settings.to_toml();
    assert!(!text.contains("secret-key") && !settings.to_json().to_string().contains("secret-key"), "{text}");
    assert_eq!(
        settings.cors_origins,
        CorsOrigins::Listed(vec!["https://a.example".into(), "http://b:3000".into()])
    );
    let again = load(&[], &[], Some(&text.replace("********", ""))).unwrap();
    assert_eq!(again.upload_dir, Path::new("my \"files\""));
    assert_eq!(again.cors_origins, settings.cors_origins);
}

#[test]
fn the_file_in_the_repository_has_every_setting_with_its_default() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT_FILE)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    assert!(table.is_empty(), "as it is it sets nothing");
    let uncommented: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#"))
        .filter(|line| !line.starts_with(' '))
        .collect::<Vec<_>>()
        .join("\n");
    let table: toml::Table = uncommented.parse().unwrap();
    for spec in SPECS {
        assert_eq!(table.get(spec.key).and_then(plain).as_deref(), Some(spec.default), "{}", spec.key);
        assert!(text.contains(spec.help), "{}: {}", spec.key, spec.help);
    }
    assert_eq!(table.len(), SPECS.len());
}
