//! The life of a node: start, stop, its data directory, and a disk without space.

use std::{fs, path::PathBuf, process::Command};

use crate::harness::{Client, Node, NodeOptions, Push, Raw, Session, Tool, eventually};

#[test]
fn a_stopping_node_tells_its_clients_and_keeps_what_it_accepted() {
    let mut node = Node::start();
    Client::v5(&node, Session::kept("phone")).disconnect();
    Push::to_device("phone", 1).send(&node);
    let mut device = Raw::connected(&node, 5, "device");
    let mut old_device = Raw::connected(&node, 4, "old-device");
    let paho = Client::v5(&node, Session::clean("paho"));
    node.stop();
    assert_eq!(device.reason_of_close(), Some(0x8b));
    assert_eq!(old_device.packet(), None);
    assert_eq!(paho.await_disconnected(), Some(0x8b));
    node.start_again();
    let phone = Client::v5(&node, Session::kept("phone"));
    assert_eq!(phone.next_message().json()["data"]["n"], 1);
}

#[test]
fn ctrl_c_stops_a_node_too() {
    let mut node = Node::start();
    node.signal(rustix::process::Signal::INT);
    assert!(node.await_end().success());
}

#[test]
fn the_banner_tells_addresses_data_directory_and_how_to_push() {
    let node = Node::start();
    let wanted = [
        node.http().to_string(),
        node.address(crate::harness::Transport::Tcp).to_string(),
        node.address(crate::harness::Transport::Ws).to_string(),
        node.data().display().to_string(),
        "/v1/apps/default/pushes".to_owned(),
    ];
    eventually("the banner", || {
        let log = node.log().join("\n");
        wanted.iter().all(|part| log.contains(part)).then_some(())
    });
}

#[test]
fn a_second_process_on_the_same_data_directory_is_refused() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("device"));
    let mut second = Command::new(env!("CARGO_BIN_EXE_campanile"));
    let free = "127.0.0.1:0";
    second
        .args([
            "serve", "--dev", "--mqtt", free, "--ws", free, "--http", free, "--data",
        ])
        .arg(node.data());
    let complaint = Tool::of(&mut second).fail();
    assert!(
        complaint.contains(node.data().to_str().expect("the path is UTF-8")),
        "{complaint}"
    );
    Push::to_device("device", 1).send(&node);
    assert_eq!(device.next_message().topic, "push/in");
}

#[test]
fn a_data_directory_of_a_newer_format_is_refused_and_left_alone() {
    let mut node = Node::start();
    Push::to_device("phone", 1).send(&node);
    node.stop();
    let file = format_file(&node);
    let format = fs::read_to_string(&file).expect("the format is text");
    let newer = format.replace(|c: char| c.is_ascii_digit(), "9");
    assert_ne!(newer, format);
    fs::write(&file, &newer).expect("the file can be written");
    let complaint = Tool::of(&mut node.command()).fail();
    assert!(complaint.contains("newer"), "{complaint}");
    assert_eq!(
        fs::read_to_string(&file).expect("the file is still there"),
        newer
    );
    fs::write(&file, &format).expect("the file can be written");
    node.start_again();
    let phone = Client::v5(&node, Session::clean("phone"));
    assert_eq!(phone.next_message().json()["data"]["n"], 1);
}

/// The file that tells the format of a data directory.
fn format_file(node: &Node) -> PathBuf {
    let file = node.data().join("FORMAT");
    assert!(file.exists(), "no {}", file.display());
    file
}

/// A file system of its own for a test; needs the right to mount.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    const MEGABYTES: u32 = 256;

    fn new() -> Option<SmallDisk> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let size = format!("size={}m", SmallDisk::MEGABYTES);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(directory.path())
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk { directory })
    }

    fn ballast(&self) -> PathBuf {
        self.directory.path().join("ballast")
    }

    /// Leaves a few megabytes free.
    fn fill(&self) {
        let free = rustix::fs::statvfs(self.directory.path()).expect("the disk tells its space");
        let bytes = free.f_bavail * free.f_frsize - (4 << 20);
        let ballast = fs::File::create(self.ballast()).expect("the disk can be written");
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, bytes)
            .expect("there is space");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failing test may still have the node on it.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.directory.path())
            .status();
    }
}

#[test]
fn a_full_disk_refuses_what_must_last_and_heals() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("skipped: mounting a small disk is not permitted");
        return;
    };
    let data = Some(disk.directory.path().join("data"));
    let settings = "[store]\nmin_free_bytes = \"32MiB\"\n".to_owned();
    let node = Node::with(NodeOptions {
        data,
        settings,
        ..NodeOptions::default()
    });
    Client::v5(&node, Session::kept("away")).disconnect();
    let mut device = Client::v5(&node, Session::kept("device"));
    device.subscribe("a", 1);
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    Push::to_device("away", 1).send(&node);

    disk.fill();
    let refusal = eventually("a refusal", || {
        let response = Push::to_device("away", 2)
            .try_send(&node)
            .expect("the node answers");
        (response.status != 202).then_some(response)
    });
    assert_eq!(
        (refusal.status, refusal.json()["code"].as_str()),
        (503, Some("store_unavailable"))
    );
    assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
    assert_eq!(publisher.publish("a", "must last", 1), 0x97);
    publisher.publish("a", "need not last", 0);
    assert_eq!(device.next_message().payload, "need not last");
    let newcomer = Client::v5(&node, Session::clean("newcomer"));
    newcomer.disconnect();

    fs::remove_file(disk.ballast()).expect("the ballast can go");
    let last = eventually("acceptance", || {
        let response = Push::to_device("away", 3)
            .try_send(&node)
            .expect("the node answers");
        (response.status == 202).then(|| response.json()["push_id"].clone())
    });
    assert_eq!(publisher.publish("a", "must last", 1), 0);
    assert_eq!(device.next_message().payload, "must last");
    let away = Client::v5(&node, Session::kept("away"));
    let mut received = Vec::new();
    while received.last() != Some(&last) {
        received.push(away.next_message().json()["id"].clone());
    }
    assert!(received.len() >= 2, "what was accepted before is there");
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("campanile.toml");
    fs::write(
        &file,
        "[limits]\nmax_qos = 7\nmax_topic_level = 3\n[http]\naddress = \"nowhere\"\n",
    )
    .expect("written");
    let path = file.to_str().expect("the path is UTF-8");
    for arguments in [
        vec!["check-config", "--config", path],
        vec!["serve", "--config", path],
    ] {
        let complaint = Tool::campanile(arguments).fail();
        for wanted in [
            "limits.max_qos",
            "limits.max_topic_level",
            "did you mean",
            "http.address",
        ] {
            assert!(complaint.contains(wanted), "no {wanted}: {complaint}");
        }
    }
}
