//! The embedded store against the end of its process, a full disk, and damage.

mod common;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command as Process, Stdio},
    sync::Arc,
};

use campanile_backends::{
    Backend, Reader, Reply, Request,
    embedded::{Durability, Embedded, EmbeddedConfig, OpenError},
    suite::{client, publish},
};
use campanile_broker::{
    ids::{Generation, MessageId, Millis, Offset},
    message::{Kind, Message},
    store::{Claim, Command, LogKind, Notice, Outcome, Page, Publish, Query, StoreError},
};

const LOG: LogKind = LogKind::Topic(0);
/// Set for the process that is to be killed: its data directory.
const VICTIM: &str = "CAMPANILE_TEST_VICTIM";

fn config(path: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        min_free_bytes: 0,
        ..EmbeddedConfig::new(path)
    }
}

fn append(id: u128, payload: &[u8]) -> Request {
    let message = Message::new(MessageId(id), Kind::Publish, "t", &[], payload);
    Request::Broker(Command::Publish(Publish {
        log: Some(LOG),
        ..publish(&message.into())
    }))
}

fn done() -> Result<Reply, StoreError> {
    Ok(Reply::Broker(Outcome::Done))
}

/// Ids of all messages in the log.
fn log(reader: &Arc<dyn Reader>) -> Vec<u128> {
    let mut ids = Vec::new();
    let mut after = Offset(0);
    loop {
        let query = Query::Log {
            app: client("a").app,
            log: LOG,
            after,
            limit: 1000,
        };
        match reader.read(&query) {
            Ok(Page::Log {
                entries, read_to, ..
            }) => {
                if entries.is_empty() {
                    return ids;
                }
                ids.extend(entries.iter().map(|entry| entry.message.id.0));
                after = read_to;
            }
            other => panic!("no log: {other:?}"),
        }
    }
}

/// Not a test of its own: what the killed process does.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else {
        return;
    };
    let mut store = Embedded::open(config(Path::new(&path))).unwrap();
    store.recover(Millis(1)).unwrap();
    let mut next = log(&store.reader()).last().copied().unwrap_or_default();
    loop {
        let batch = (0..50).map(|_| {
            next += 1;
            append(next, &[b'x'; 500])
        });
        let committed = store.commit(batch.collect());
        assert!(
            committed.replies.iter().all(|reply| *reply == done()),
            "{committed:?}"
        );
        let Some(Notice::Log { entry, .. }) = committed.notices.last() else {
            panic!("no notice")
        };
        println!("acknowledged {next} {}", entry.offset.0);
    }
}

#[test]
fn everything_acknowledged_survives_the_end_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut offset = 0;
    for round in 0..3 {
        let mut process = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut killed = false;
        let mut seen = 0;
        // To the end: what was acknowledged before the kill may still be on its way.
        for line in lines.by_ref() {
            let line = line.unwrap();
            let Some((_, numbers)) = line.split_once("acknowledged ") else {
                continue;
            };
            let (id, at) = numbers.split_once(' ').unwrap();
            acknowledged = id.parse::<u128>().unwrap();
            let before = std::mem::replace(&mut offset, at.trim().parse::<u64>().unwrap());
            assert!(offset > before, "offset {offset} after {before}");
            seen += 1;
            if seen >= 20 + 7 * round && !killed {
                process.kill().unwrap();
                killed = true;
            }
        }
        process.wait().unwrap();
        assert!(killed);
        let store = Embedded::open(config(directory.path())).unwrap();
        assert!(!store.opened().clean);
        assert_eq!(store.opened().missing_commits, 0);
        let ids = log(&store.reader());
        assert!(ids.len() as u128 >= acknowledged);
        assert_eq!(ids, (1..=ids.len() as u128).collect::<Vec<_>>());
    }
}

#[test]
fn a_closed_store_is_opened_clean() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(config(directory.path())).unwrap();
    assert_eq!(store.commit(vec![append(1, b"x")]).replies, [done()]);
    let reader = store.reader();
    Box::new(store).close().unwrap();
    let query = Query::Log {
        app: client("a").app,
        log: LOG,
        after: Offset(0),
        limit: 1,
    };
    assert!(matches!(
        reader.read(&query),
        Err(StoreError::Unavailable(_))
    ));
    let store = Embedded::open(config(directory.path())).unwrap();
    assert!(store.opened().clean);
    assert_eq!((store.opened().commits, store.opened().sequence), (1, 1));
}

#[test]
fn a_directory_is_used_by_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(directory.path())).unwrap();
    let error = Embedded::open(config(directory.path())).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(store);
    Embedded::open(config(directory.path())).unwrap();
}

#[test]
fn a_cut_journal_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(config(directory.path())).unwrap();
    for id in 1..=10 {
        store.commit(vec![append(id, &[b'x'; 5000])]);
    }
    Box::new(store).close().unwrap();
    let journal = std::fs::read_dir(directory.path().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(journal)
        .unwrap();
    file.set_len(2000).unwrap();
    let store = Embedded::open(config(directory.path())).unwrap();
    assert!(store.opened().missing_commits > 0, "{:?}", store.opened());
    assert!(!store.opened().clean);
}

#[test]
fn the_reserve_is_kept_free() {
    let directory = tempfile::tempdir().unwrap();
    let huge = EmbeddedConfig {
        min_free_bytes: u64::MAX,
        ..config(directory.path())
    };
    let mut store = Embedded::open(huge).unwrap();
    let replies = store.commit(vec![append(1, b"x")]).replies;
    let [Err(StoreError::Unavailable(reason))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(reason.contains("disk full"), "{reason}");
}

/// A small file system, or `None` where mounting is not permitted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(directory));
        }
        eprintln!("skipped: mounting a file system is not permitted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// 64 KiB that the journal cannot make smaller.
fn incompressible() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..64 * 1024).map(|_| next()).collect()
}

fn ephemeral_claim() -> Request {
    let client = client("ephemeral");
    let claim = Claim {
        client,
        owner: Generation::ALONE,
        now: Millis(1),
        clean_start: false,
        expiry_seconds: 0,
        will: None,
    };
    Request::Broker(Command::Claim(claim))
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let mut store = Embedded::open(EmbeddedConfig {
        min_free_bytes: 8 * 1024 * 1024,
        ..config(disk.path())
    })
    .unwrap();
    store.recover(Millis(1)).unwrap();
    store.commit(vec![ephemeral_claim()]);
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 20 * 1024 * 1024]).unwrap();
    let payload = incompressible();
    let mut last = 0;
    let reason = loop {
        let replies = store.commit(vec![append(last + 1, &payload)]).replies;
        match &replies[0] {
            Ok(_) => last += 1,
            Err(StoreError::Unavailable(reason)) => break reason.clone(),
            other => panic!("{other:?}"),
        }
        assert!(last < 1000);
    };
    assert!(reason.contains("disk full"), "{reason}");
    // What needs no disk goes on.
    assert!(matches!(
        store.commit(vec![ephemeral_claim()]).replies[0],
        Ok(Reply::Broker(Outcome::Claimed(_)))
    ));
    assert_eq!(log(&store.reader()).len() as u128, last);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(
        store.commit(vec![append(last + 1, &payload)]).replies,
        [done()]
    );
    assert_eq!(log(&store.reader()), (1..=last + 1).collect::<Vec<_>>());
}

#[test]
fn a_database_that_met_a_full_disk_is_opened_again() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let mut store = Embedded::open(config(disk.path())).unwrap();
    store.recover(Millis(1)).unwrap();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 20 * 1024 * 1024]).unwrap();
    let payload = incompressible();
    let mut stored = Vec::new();
    let mut id = 0;
    while id < 1000 {
        id += 1;
        if store.commit(vec![append(id, &payload)]).replies != [done()] {
            break;
        }
        stored.push(id);
    }
    assert!(id < 1000, "the disk never got full");
    assert_eq!(log(&store.reader()), stored);
    std::fs::remove_file(&ballast).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        id += 1;
        if store.commit(vec![append(id, b"after")]).replies == [done()] {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the store did not recover"
        );
        std::thread::yield_now();
    }
    stored.push(id);
    assert_eq!(log(&store.reader()), stored);
    drop(store);
    let store = Embedded::open(config(disk.path())).unwrap();
    assert_eq!(log(&store.reader()), stored);
}

#[test]
fn durability_of_the_operating_system_survives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let os = || EmbeddedConfig {
        durability: Durability::Os,
        ..config(directory.path())
    };
    let mut store = Embedded::open(os()).unwrap();
    assert_eq!(store.commit(vec![append(1, b"x")]).replies, [done()]);
    // No destructor runs, as when the process is killed, but for the lock, which the system would release.
    drop(store);
    assert_eq!(log(&Embedded::open(os()).unwrap().reader()), [1]);
}
