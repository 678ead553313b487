//! The document of the API: sound by itself, and true of a real node.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::{Lines, Node, NodeOptions, installed, request, root};

/// Seconds for which the API is fuzzed, unless `CAMPANILE_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 60;

/// The document as the node serves it.
fn document(node: &Node) -> String {
    let answer = request(node.http(), "GET /openapi.json HTTP/1.1", "");
    answer.expect("the node answers").body
}

#[test]
fn the_document_is_openapi_3_1() {
    let node = Node::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("openapi.json");
    fs::write(&file, document(&node)).unwrap();
    let validator = installed(root().join(".local/venv/bin/openapi-spec-validator"));
    let output = Command::new(validator)
        .args(["--schema", "3.1"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn whatever_is_sent_is_answered_as_the_document_says() {
    let node = Node::with(NodeOptions {
        tls: true,
        ..NodeOptions::default()
    });
    let given = std::env::var("CAMPANILE_FUZZ_SECONDS").ok();
    let seconds = given
        .as_ref()
        .map_or(SECONDS, |given| given.parse().expect("a number of seconds"));
    let directory = tempfile::tempdir().unwrap();
    let (output, input) = std::io::pipe().unwrap();
    let tools = root().join("tests/e2e");
    let tools = fs::canonicalize(tools).unwrap();
    let mut fuzzer = Command::new(installed(root().join(".local/venv/bin/schemathesis")));
    fuzzer
        .current_dir(directory.path())
        .env("CAMPANILE_KEY", node.api_key())
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", &tools)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--config-file")
        .arg(tools.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", node.http()))
        .args(["--max-time", &seconds.to_string(), "--max-examples", "25"])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"]);
    // The usual run is the same every time; a longer one looks elsewhere each time, and prints its seed.
    if given.is_none() {
        // What breaks a rule of the document and is taken all the same is for the longer one to find: how much of that is tried depends on how fast the machine is.
        fuzzer.args(["--seed", "1", "--exclude-checks", "negative_data_rejection"]);
    }
    let mut fuzzer = fuzzer
        .stderr(input.try_clone().unwrap())
        .stdout(input)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let lines = Lines::of(output);
    let deadline = Instant::now() + Duration::from_secs(seconds + 180);
    let status = loop {
        if let Some(status) = fuzzer.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = fuzzer.kill();
            let _ = fuzzer.wait();
            panic!("the fuzzer does not end:\n{}", lines.all().join("\n"));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(status.success(), "{}", lines.all().join("\n"));
}
