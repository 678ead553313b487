//! The commands that need no node, as a script sees them: output, errors, exit codes.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Runs the binary in a directory, without our own environment's settings.
fn run_with_input(dir: &Path, line: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
    command.current_dir(dir).args(line);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CAMPANILE_"))
    {
        command.env_remove(name);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("the input is piped");
    let _ = stdin.write_all(input.as_bytes()); // A command that wants none may have ended.
    drop(stdin);
    child.wait_with_output().expect("the binary ends")
}

/// Runs the binary; checks its exit code; gives its output and errors.
#[track_caller]
fn check(dir: &Path, line: &[&str], code: i32) -> (String, String) {
    let output = run_with_input(dir, line, "");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{line:?}\n{out}\n{errors}"
    );
    (out, errors)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

#[test]
fn usage_errors_have_code_2_and_help_and_version_code_0() {
    let dir = directory();
    for line in [
        &[][..],
        &["nonsense"],
        &["serve", "--mqtt", "nowhere"],
        &["push", "--key", "k"],
    ] {
        check(dir.path(), line, 2);
    }
    assert!(
        check(dir.path(), &["--version"], 0)
            .0
            .starts_with("campanile ")
    );
    for command in [
        "serve",
        "push",
        "app",
        "passwd",
        "check-config",
        "pub",
        "sub",
        "bench",
        "completions",
    ] {
        assert!(
            check(dir.path(), &[command, "--help"], 0)
                .0
                .contains("Usage: campanile"),
            "{command}"
        );
    }
    assert!(
        check(dir.path(), &["completions", "bash"], 0)
            .0
            .contains("_campanile")
    );
}

#[test]
fn check_config_reports_every_mistake_for_people_and_scripts() {
    let dir = directory();
    fs::write(dir.path().join("acl"), "topic\n").expect("a file can be written");
    fs::write(
        dir.path().join("bad.toml"),
        "[limits]\nmax_qos = 3\nx = 1\n",
    )
    .expect("a file can be written");
    fs::write(
        dir.path().join("files.toml"),
        "[clients]\npassword_file = 'nowhere'\nacl_file = 'acl'\n",
    )
    .expect("a file can be written");

    let (out, _) = check(dir.path(), &["check-config", "--config", "bad.toml"], 1);
    assert!(
        out.contains("bad.toml:2: limits.max_qos: ")
            && out.contains("bad.toml:3: limits.x: unknown key"),
        "{out}"
    );
    let (out, _) = check(
        dir.path(),
        &["check-config", "--config", "files.toml", "--json"],
        1,
    );
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&found["ok"], found["mistakes"].as_array().map(Vec::len)),
        (&Value::Bool(false), Some(2)),
        "{out}"
    );

    let (defaults, _) = check(dir.path(), &["check-config", "--print-defaults"], 0);
    fs::write(dir.path().join("good.toml"), defaults).expect("a file can be written");
    let (out, _) = check(dir.path(), &["check-config", "--config", "good.toml"], 0);
    assert!(
        out.ends_with("good.toml: 0 mistakes, 0 warnings\n"),
        "{out}"
    );

    let nobody = "[[listeners]]\nname = 'mqtt'\naddress = '127.0.0.1:1883'\nauth = ['password']\n";
    fs::write(dir.path().join("odd.toml"), nobody).expect("a file can be written");
    let (out, _) = check(dir.path(), &["check-config", "--config", "odd.toml"], 0);
    assert!(
        out.contains("warning: clients.password_file: ")
            && out.ends_with("odd.toml: 0 mistakes, 1 warning\n"),
        "{out}"
    );
}

#[test]
fn serve_says_what_to_do_without_configuration_and_names_the_key_of_what_is_wrong() {
    let dir = directory();
    let (_, errors) = check(dir.path(), &["serve"], 1);
    assert!(errors.contains("campanile serve --dev"), "{errors}");
    fs::write(dir.path().join("c.toml"), "[limit]\n").expect("a file can be written");
    let (_, errors) = check(dir.path(), &["serve", "--config", "c.toml"], 1);
    assert!(
        errors.contains("c.toml:1: limit: unknown key; did you mean \"limits\"?"),
        "{errors}"
    );

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let any = "127.0.0.1:0";
    let (_, errors) = check(
        dir.path(),
        &[
            "serve", "--dev", "--mqtt", any, "--ws", &address, "--http", any,
        ],
        1,
    );
    assert!(
        errors.contains(&format!(
            "--ws: listeners[1].address: cannot listen on {address}"
        )),
        "{errors}"
    );
    let (_, errors) = check(
        dir.path(),
        &[
            "serve", "--dev", "--mqtt", any, "--ws", any, "--http", &address,
        ],
        1,
    );
    assert!(
        errors.contains(&format!("--http: http.address: cannot listen on {address}")),
        "{errors}"
    );
}

#[test]
fn apps_are_made_on_the_data_directory_of_a_stopped_node() {
    let dir = directory();
    let (_, errors) = check(dir.path(), &["app", "list", "--data", "data"], 1);
    assert!(
        errors.contains("data directory data: there is none"),
        "{errors}"
    );
    let (out, _) = check(
        dir.path(),
        &["app", "create", "shop", "--data", "data", "--json"],
        0,
    );
    let made: Value = serde_json::from_str(&out).expect("JSON");
    assert!(
        made["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("cmp_")),
        "{out}"
    );
    check(dir.path(), &["app", "create", "shop", "--data", "data"], 1);
    check(dir.path(), &["app", "key", "shop", "--data", "data"], 0);
    check(dir.path(), &["app", "key", "nobody", "--data", "data"], 1);
    assert_eq!(
        check(dir.path(), &["app", "list", "--data", "data"], 0).0,
        "shop\n"
    );
    check(dir.path(), &["app", "create", "Shop", "--data", "data"], 2);
}

#[test]
fn passwd_adds_changes_and_deletes_users() {
    let dir = directory();
    let passwd = |line: &[&str], input: &str| {
        run_with_input(dir.path(), &[&["passwd", "file"], line].concat(), input)
            .status
            .code()
    };
    let text = || fs::read_to_string(dir.path().join("file")).expect("the file is there");
    assert_eq!(
        passwd(&["ann", "--password-stdin", "--scram"], "secret\n"),
        Some(0)
    );
    assert_eq!(passwd(&["bob", "--password-stdin"], "secret"), Some(0));
    assert_eq!(
        text().lines().map(|line| &line[..9]).collect::<Vec<_>>(),
        ["ann:$argo", "ann:SCRAM", "bob:$argo"]
    );
    assert_eq!(passwd(&["ann", "--password-stdin"], "other\n"), Some(0));
    assert_eq!(
        text().lines().count(),
        2,
        "the verifier of the old password is gone"
    );
    assert_eq!(passwd(&["ann", "--delete"], ""), Some(0));
    assert_eq!(passwd(&["ann", "--delete"], ""), Some(1));
    assert_eq!(
        passwd(&["ann", "--password-stdin"], "\n"),
        Some(1),
        "an empty password"
    );
    assert_eq!(passwd(&["a:b", "--password-stdin"], "x"), Some(2));
    assert_eq!(text().lines().count(), 1);
}
