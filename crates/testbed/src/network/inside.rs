//! Running this program once more in a network namespace of its own, where it may make hosts.
//!
//! As root that takes `unshare --net`; anybody else becomes root of a user namespace on the way. A process cannot move there itself: the kernel refuses that to one with
//! threads. Everything in the namespace goes with its last process, so there is nothing to clean up, and no two networks meet.

use std::{env, ffi::OsStr, process::Command};

use anyhow::{Context, bail};

/// Set for a process that is in a namespace of its own.
const MARK: &str = "CAMPANILE_TESTBED_INSIDE";

/// Ways into a namespace, the first that works is taken: the second needs no rights, where the kernel lets users make namespaces.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// Whether this process is in a namespace of its own.
pub fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// This program with other arguments, in a namespace of its own. Fails with what is missing.
pub fn again(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Command> {
    let path = search_path();
    let mut reasons = Vec::new();
    for way in WAYS {
        // What a host needs, all of it.
        let mut probe = Command::new("unshare");
        probe.args(way).args(["sh", "-c", PROBE]).env("PATH", &path);
        let output = probe
            .output()
            .context("cannot run unshare: install util-linux")?;
        if output.status.success() {
            let mut command = Command::new("unshare");
            command
                .args(way)
                .arg(env::current_exe()?)
                .args(arguments)
                .env("PATH", &path)
                .env(MARK, "1");
            return Ok(command);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        reasons.push(format!("unshare {}: {}", way.join(" "), said.trim()));
    }
    bail!(
        "a network of hosts needs ip (iproute2), nft (nftables), nsenter (util-linux), and either root with the capability SYS_ADMIN or user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone):\n{}",
        reasons.join("\n")
    )
}

/// Makes a host's parts and forgets them.
const PROBE: &str = "set -e
ip link add name probe type bridge
ip link add name one type veth peer name other
nft add table inet probe
unshare --net nsenter --net=/proc/self/ns/net true";

/// Runs a test in a namespace of its own: this test program again, with this test alone. `test` must be written in the body of the test's function, whose name
/// is taken from it.
///
/// # Panics
///
/// If the test fails, or cannot be run.
pub fn test<F: FnOnce()>(test: F) {
    if is_inside() {
        return test();
    }
    let path = std::any::type_name::<F>();
    // CRATE::MODULE::FUNCTION::{{closure}}
    let name = path
        .split_once("::")
        .and_then(|(_, name)| name.strip_suffix("::{{closure}}"))
        .unwrap_or_else(|| panic!("{path} is no closure of a test"));
    let output = again(["--exact", name, "--nocapture"])
        .and_then(|mut command| Ok(command.output()?))
        .unwrap_or_else(|error| panic!("{name} could not be run: {error:#}"));
    let said = String::from_utf8_lossy(&output.stdout);
    // Not as a test result of ours.
    let errors = String::from_utf8_lossy(&output.stderr);
    for line in said.lines().chain(errors.lines()) {
        println!("  | {line}");
    }
    assert!(
        output.status.success() && said.contains("test result: ok. 1 passed"),
        "{name} failed in its namespace"
    );
}

/// Users often lack the directories of `ip` and `nft`.
fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}
