use std::path::Path;

use proptest::prelude::*;

use super::*;

fn messages(text: &str) -> Vec<String> {
    match parse(Path::new("c.toml"), text) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn load_env(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(None, pairs, &Overrides::default(), false)
}

fn sample() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/campanile.toml");
    let text = std::fs::read_to_string(&path).expect("the sample configuration");
    (path, text)
}

#[test]
fn sample_file_holds_exactly_the_defaults() {
    let (path, text) = sample();
    let loaded = parse(&path, &text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.settings, Settings::default());
}

#[test]
fn sample_file_shows_every_key() {
    let (path, text) = sample();
    let mut findings = Findings::default();
    let table = tree::parse_toml(&path, &text, &mut findings.problems);
    let mut root = Reader::root(table, &mut findings);
    Settings::default().read(&mut root);
    root.finish();
    assert_eq!(findings.unset, Vec::<String>::new());
    assert!(findings.known.len() > 50);
}

#[test]
fn every_key_of_the_sample_file_is_explained_in_the_docs() {
    let docs = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md"),
    )
    .expect("the page");
    let mut findings = Findings::default();
    let mut root = Reader::root(Table::new(), &mut findings);
    Settings::default().read(&mut root);
    root.finish();
    for key in findings
        .known
        .iter()
        .filter_map(|path| path.rsplit_once('.'))
    {
        assert!(
            docs.contains(&format!("`{}`", key.1)),
            "{}.{} is not in docs/configuration.md",
            key.0,
            key.1
        );
    }
}

#[test]
fn example_files_of_clusters_have_no_mistake() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/cluster");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the examples") {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = parse(&path, &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.settings.cluster.is_member(), "{}", path.display());
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["local", "redis-cluster", "sentinel"]);
}

/// All TOML blocks of docs/operations.md are one configuration each.
#[test]
fn examples_of_the_operations_page_have_no_mistake() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = std::fs::read_to_string(&page).expect("the page");
    let blocks = text.split("```toml\n").skip(1);
    let examples: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        assert_eq!(messages(example), [""; 0]);
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_path_line_and_way_out() {
    let text = r#"
[limits]
max_packet_byte = 5
max_payload_bytes = "1 XB"
connect_timeout = 10
max_qos = 3

[[listeners]]
adress = "0.0.0.0:1883"
transport = "tlss"

[[listeners]]
name = "secure"
address = "localhost:8883"
transport = "tls"
app = "Shop"

[htpp]
port = 1

[http]
shards = 2
"#;
    let expected = [
        "c.toml:3: limits.max_packet_byte: unknown key; did you mean \"max_packet_bytes\"?",
        "c.toml:4: limits.max_payload_bytes: \"1 XB\": the unit \"XB\" is none of B, KiB, MiB, GiB, TiB, kB, MB, GB",
        "c.toml:5: limits.connect_timeout: 10 lacks a unit: write \"10s\" for seconds, in quotes",
        "c.toml:6: limits.max_qos: 3 is not within 0 and 2",
        "c.toml:9: listeners[0].adress: unknown key; did you mean \"address\"?",
        "c.toml:10: listeners[0].transport: \"tlss\" is none of \"tcp\", \"tls\", \"ws\", \"wss\"",
        "c.toml:12: listeners[1].tls_certificate: the transport \"tls\" needs it: name a PEM file",
        "c.toml:12: listeners[1].tls_key: the transport \"tls\" needs it: name a PEM file",
        "c.toml:14: listeners[1].address: \"localhost:8883\" is not an address: write \"127.0.0.1:8883\" or \"[::1]:8883\"",
        "c.toml:16: listeners[1].app: app name \"Shop\": 1 to 64 of a-z, 0-9, \"_\" and \"-\", beginning with a letter or digit",
        "c.toml:18: htpp: unknown key; did you mean \"http\"?",
        "c.toml:22: http.shards: unknown key here; did you mean \"node.shards\"?",
    ];
    let mut found = messages(text);
    // A listener that is wrong already may also clash with the defaults of another.
    found.retain(|message| !message.contains("is that of the listener"));
    assert_eq!(found, expected);
}

#[test]
fn environment_is_laid_over_and_its_mistakes_are_named() {
    let loaded = load_env(&[
        ("CAMPANILE_LIMITS__MAX_PACKET_BYTES", "2 MiB"),
        ("CAMPANILE_LISTENERS__0__ADDRESS", "127.0.0.1:0"),
        ("CAMPANILE_CLIENTS__ALLOW_ANONYMOUS", "true"),
        ("CAMPANILE_LIMITS__RECEIVE_MAXIMUM", "7"),
        ("CAMPANILE_STORE__KIND", "redis"),
        ("CAMPANILE_REDIS__MODE", "sentinel"),
        ("CAMPANILE_REDIS__MASTER_NAME", "push"),
        ("CAMPANILE_REDIS__ADDRESSES", "a:26379, b:26379"),
        ("CAMPANILE_REDIS__PASSWORD", "hunter2"),
        ("CAMPANILE_LOG", "trace"),
        ("CAMPANILE_PORT", "tcp://10.0.0.1:80"),
    ])
    .unwrap();
    assert_eq!(loaded.settings.limits.max_packet_bytes, 2 << 20);
    assert_eq!(loaded.settings.limits.receive_maximum, 7);
    assert_eq!(
        loaded.settings.listeners[0].address,
        "127.0.0.1:0".parse().unwrap()
    );
    assert!(loaded.settings.clients.allow_anonymous);
    assert_eq!(loaded.settings.redis.addresses, ["a:26379", "b:26379"]);
    assert_eq!(loaded.settings.redis.password.reveal(), "hunter2");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert_eq!(
        loaded.origin("limits.receive_maximum"),
        Origin::Environment("CAMPANILE_LIMITS__RECEIVE_MAXIMUM".to_owned())
    );

    let wrong = load_env(&[
        ("CAMPANILE_LIMITS__MAX_PACKET_BITES", "1"),
        ("CAMPANILE_HTTP__ADDRESS", "8080"),
    ])
    .unwrap_err();
    let found: Vec<String> = wrong.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "CAMPANILE_HTTP__ADDRESS: http.address: \"8080\" is not an address: an IP address and a port are expected, such as \"127.0.0.1:1883\" or \"[::1]:1883\"",
            "CAMPANILE_LIMITS__MAX_PACKET_BITES: limits.max_packet_bites: unknown key; did you mean \"max_packet_bytes\"?",
        ]
    );
}

#[test]
fn flags_replace_the_first_listener_of_their_kind_or_add_one() {
    let address = "127.0.0.1:0".parse().unwrap();
    let overrides = Overrides {
        mqtt: Some(address),
        ws: Some(address),
        http: Some(address),
        data_dir: Some("d".into()),
        log_format: Some(LogFormat::Json),
    };
    let loaded = load(None, [], &overrides, false).unwrap();
    let settings = &loaded.settings;
    let kinds: Vec<_> = settings
        .listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.transport, listener.address))
        .collect();
    assert_eq!(
        kinds,
        [
            ("mqtt", Transport::Tcp, address),
            ("ws", Transport::Ws, address)
        ]
    );
    assert_eq!(
        (
            settings.http.address,
            settings.node.data_dir.as_path(),
            settings.log.format
        ),
        (address, Path::new("d"), LogFormat::Json)
    );
    assert_eq!(loaded.origin("listeners[1].address"), Origin::Flag("--ws"));

    let development = load(None, [], &overrides, true).unwrap();
    assert_eq!(development.settings.listeners.len(), 2);
    assert_eq!(development.warnings, []);
}

#[test]
fn an_unencrypted_listener_with_tls_keys_is_a_mistake() {
    let found = messages(
        "[[listeners]]\ntls_certificate = 'c.pem'\ntransport = 'ws'\ntls_client_auth = 'required'\n",
    );
    assert_eq!(
        found,
        [
            "c.toml:2: listeners[0].tls_certificate: the transport \"ws\" is not encrypted and ignores it: did you mean \"wss\"?",
            "c.toml:4: listeners[0].tls_client_auth: the transport \"ws\" is not encrypted and ignores it: did you mean \"wss\"?",
        ]
    );
}

#[test]
fn limits_that_contradict_each_other_are_mistakes() {
    let found = messages(
        "[limits]\nmax_payload_bytes = '2 MiB'\nv3_session_expiry = 'unlimited'\n[http]\nmax_payload_bytes = '128 KiB'\n",
    );
    let keys: Vec<_> = found
        .iter()
        .map(|message| message.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "limits.max_payload_bytes",
            "limits.v3_session_expiry",
            "http.max_payload_bytes"
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_one_clear_mistake() {
    let problems = load(
        Some(Path::new("/nowhere/c.toml")),
        [],
        &Overrides::default(),
        false,
    )
    .unwrap_err();
    assert!(
        problems
            .to_string()
            .contains("/nowhere/c.toml: cannot be read: "),
        "{problems}"
    );
}

#[test]
fn who_cannot_be_reached_is_warned_of() {
    let loaded = parse(Path::new("c.toml"), "").unwrap();
    assert_eq!(
        loaded.warnings,
        [],
        "devices with credentials of an app can"
    );
    let text = "[[listeners]]\nauth = [\"password\", \"anonymous\"]";
    let loaded = parse(Path::new("c.toml"), text).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded.warnings[0]
            .message
            .starts_with("no device can connect")
    );
}

/// TOML-like text made of real section names, keys and values of all kinds, right and wrong.
fn any_configuration() -> impl Strategy<Value = String> {
    let section = prop::sample::select(vec![
        "[node]",
        "[store]",
        "[redis]",
        "[cluster]",
        "[[listeners]]",
        "[limits]",
        "[clients]",
        "[http]",
        "[log]",
        "[x.y]",
        "[listeners]",
        "[limits",
        "",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "data_dir",
        "shards",
        "kind",
        "retention",
        "address",
        "addresses",
        "zookeeper",
        "password",
        "peer_advertise",
        "transport",
        "app",
        "path",
        "max_packet_bytes",
        "max_qos",
        "max_session_expiry",
        "level",
        "format",
        "head_timeout",
        "password_file",
        "tls_client_auth",
        "limits.max_qos",
        "\"\"",
        "a.b.c",
        "",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "1",
            "-1",
            "99999999999999999999",
            "1.5",
            "true",
            "\"10s\"",
            "\"1 MiB\"",
            "\"\"",
            "[]",
            "[1]",
            "{}",
            "{a=1}",
            "2020-01-01",
            "'é€\u{1F600}'",
            "\"tls\"",
            "inf",
            "\"\\u0000\""
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    prop::collection::vec((section, prop::collection::vec((key, value), 0..4)), 0..5).prop_map(
        |sections| {
            let line = |(key, value): (&str, String)| format!("{key} = {value}\n");
            sections
                .into_iter()
                .map(|(head, lines)| {
                    format!(
                        "{head}\n{}",
                        lines.into_iter().map(line).collect::<String>()
                    )
                })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn no_configuration_makes_it_panic(text in any_configuration()) {
        let _ = messages(&text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = messages(&text);
    }

    #[test]
    fn no_environment_makes_it_panic(
        pairs in prop::collection::vec(("(CAMPANILE_)?(LIMITS|LISTENERS|LOG|[A-Z]{0,4})(__([0-9]{0,3}|ADDRESS|NAME|LEVEL|MAX_QOS|\\PC{0,4})){0,3}", "\\PC{0,8}"), 0..6),
    ) {
        let _ = load(None, pairs, &Overrides::default(), true);
    }
}
