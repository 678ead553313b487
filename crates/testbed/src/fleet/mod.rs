//! Devices and app servers that keep an exact account of what a cluster promised them, whatever happens to it.
//!
//! Start at [`Fleet::start`], break things, mend them, and call [`Fleet::settle`]. Checked are: all that was accepted arrives; QoS 2 arrives once; first
//! deliveries keep the order of each publisher and QoS; sessions go on; a client has no two connections for long. Repeats of QoS 1 and of pushes are counted.

pub mod account;
mod member;
mod pusher;
mod superseded;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use campanile_mqtt::{QoS, Version};

use self::{
    account::{Account, Figures, Promise, ReceiverId, StreamId},
    member::{Member, Role},
    pusher::{Aim, Pusher},
};
use crate::{node::Addresses, process::wait_for, rng::Rng};

/// How long devices may take to connect for the first time.
const FIRST: Duration = Duration::from_secs(30);
/// Notes that are kept.
const NOTES: usize = 1000;

/// How large a fleet is, and what it does.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// What members draw by.
    pub seed: u64,
    /// Sessions that receive; every second one speaks MQTT 3.1.1.
    pub devices: usize,
    /// Sessions that publish with every QoS.
    pub publishers: usize,
    /// App servers; every third one pushes to everybody.
    pub pushers: usize,
    /// Sessions that share a subscription.
    pub sharers: usize,
    /// Messages a second of each publisher and QoS, and pushes a second of each app server.
    pub rate: u32,
    /// How often a device moves to another node or goes away, on average; `None`: never.
    pub roams: Option<Duration>,
}

impl Default for FleetOptions {
    fn default() -> FleetOptions {
        FleetOptions {
            seed: 1,
            devices: 6,
            publishers: 2,
            pushers: 3,
            sharers: 2,
            rate: 15,
            roams: Some(Duration::from_secs(2)),
        }
    }
}

/// What the members share.
#[derive(Debug)]
pub struct Shared {
    account: Arc<Account>,
    places: Vec<Addresses>,
    /// New messages are sent.
    sending: AtomicBool,
    stop: Arc<AtomicBool>,
    subscribed: AtomicUsize,
    /// App servers that wait for an answer.
    pushing: AtomicUsize,
    watchers: Mutex<Vec<JoinHandle<()>>>,
    notes: Mutex<Vec<String>>,
    began: Instant,
}

impl Shared {
    fn watchers(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that helps to understand a failure.
    fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES {
            notes.push(format!("{:7.3} {text}", self.began.elapsed().as_secs_f64()));
        }
    }
}

/// A fleet that runs. Stopped when dropped.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    members: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Connects all sessions, then begins to send.
    pub fn start(places: Vec<Addresses>, options: &FleetOptions) -> anyhow::Result<Fleet> {
        let shared = Arc::new(Shared {
            account: Arc::default(),
            places,
            sending: AtomicBool::new(false),
            stop: Arc::default(),
            subscribed: AtomicUsize::new(0),
            pushing: AtomicUsize::new(0),
            watchers: Mutex::default(),
            notes: Mutex::default(),
            began: Instant::now(),
        });
        let mut fleet = Fleet {
            shared: shared.clone(),
            members: Vec::new(),
        };
        let mut rng = Rng::new(options.seed);
        let (roles, pushers) = plan(&shared, options, &mut rng);
        let count = roles.len();
        for role in roles {
            let member = Member::new(role, shared.clone(), rng.draw());
            fleet.members.push(thread::spawn(move || member.run()));
        }
        wait_for("a fleet that is subscribed", FIRST, || {
            Ok((shared.subscribed.load(Ordering::Relaxed) == count).then_some(()))
        })?;
        for pusher in pushers {
            fleet.members.push(thread::spawn(move || pusher.run()));
        }
        shared.sending.store(true, Ordering::Relaxed);
        Ok(fleet)
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.shared.account
    }

    /// Waits until so much more was accepted.
    pub fn wait_accepted(&self, more: u64, patience: Duration) -> anyhow::Result<()> {
        let until = self.account().figures().accepted + more;
        wait_for("messages that are accepted", patience, || {
            Ok((self.account().figures().accepted >= until).then_some(()))
        })
    }

    /// Sends nothing new and waits until everything has arrived. Fails if it does not, or if a promise was broken.
    pub fn settle(&self, patience: Duration) -> anyhow::Result<Figures> {
        self.shared.sending.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + patience;
        // Members that are away come back; what they lack is missing until then.
        loop {
            let missing = self.account().missing();
            let overdue = self.account().overdue();
            let is_quiet = self.shared.pushing.load(Ordering::Relaxed) == 0
                && missing.0 == 0
                && self.account().superseded() == 0;
            if is_quiet {
                break;
            }
            if Instant::now() > deadline {
                let pushing = self.shared.pushing.load(Ordering::Relaxed);
                bail!(
                    "after {patience:?} {} deliveries are missing, {pushing} pushes unanswered:\n{}\n{}\n{}",
                    missing.0,
                    missing.1.join("\n"),
                    overdue.join("\n"),
                    self.trouble()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        let (count, shown) = self.account().violations();
        ensure!(
            count == 0,
            "{count} promises broken:\n{}\n{}",
            shown.join("\n"),
            self.trouble()
        );
        Ok(self.account().figures())
    }

    /// Sends again after [`Fleet::settle`].
    pub fn resume(&self) {
        self.shared.sending.store(true, Ordering::Relaxed);
    }

    /// A moment that helps to understand a failure.
    pub fn note(&self, text: &str) {
        self.shared.note(text.to_owned());
    }

    fn trouble(&self) -> String {
        let notes = &self.shared.notes;
        let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, violations) = self.account().violations();
        format!(
            "{:?}\n{count} promises broken: {violations:#?}\nnotes: {notes:#?}",
            self.account().figures()
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let watchers = std::mem::take(&mut *self.shared.watchers());
        for thread in self.members.drain(..).chain(watchers) {
            let _ = thread.join();
        }
    }
}

/// Who does what, and who is owed what.
fn plan(shared: &Arc<Shared>, options: &FleetOptions, rng: &mut Rng) -> (Vec<Role>, Vec<Pusher>) {
    let account = &shared.account;
    let version = |index: usize| match index % 2 {
        0 => Version::V5,
        _ => Version::V311,
    };
    let session = |name: String, index: usize, receiver: ReceiverId| Role {
        client_id: name,
        version: version(index),
        filters: Vec::new(),
        receiver,
        group: None,
        publishes: Vec::new(),
        rate: options.rate,
        roams: None,
    };
    let mut roles = Vec::new();
    let mut streams: Vec<(StreamId, Promise)> = Vec::new();
    for index in 0..options.publishers {
        let name = format!("publisher-{index}");
        let mut role = session(name.clone(), index, account.receiver(&name, true));
        for (qos, promise) in [
            (QoS::AtMostOnce, Promise::Nothing),
            (QoS::AtLeastOnce, Promise::AtLeastOnce),
            (QoS::ExactlyOnce, Promise::ExactlyOnce),
        ] {
            let topic = format!("p/{index}/{}", qos as u8);
            let stream = account.stream(&topic, promise);
            streams.push((stream, promise));
            role.publishes.push((topic, qos, stream));
        }
        roles.push(role);
    }
    let mut devices = Vec::new();
    for index in 0..options.devices {
        let name = format!("device-{index}");
        let receiver = account.receiver(&name, true);
        streams
            .iter()
            .for_each(|(stream, _)| account.owe(receiver, *stream));
        let mut role = session(name.clone(), index, receiver);
        role.filters = vec!["p/#".to_owned()];
        role.roams = options.roams;
        roles.push(role);
        devices.push((name, receiver));
    }
    if options.sharers > 0 {
        let group = account.receiver("group", false);
        let once = streams
            .iter()
            .filter(|(_, promise)| *promise == Promise::AtLeastOnce);
        once.for_each(|(stream, _)| account.owe(group, *stream));
        for index in 0..options.sharers {
            let name = format!("sharer-{index}");
            let mut role = session(name.clone(), index, account.receiver(&name, true));
            role.group = Some(group);
            role.filters = vec!["$share/group/p/+/1".to_owned()];
            role.roams = options.roams.map(|roams| roams * 2);
            roles.push(role);
        }
    }
    // A push to everybody is for every session that there is.
    let everybody: Vec<ReceiverId> = roles.iter().map(|role| role.receiver).collect();
    let mut pushers = Vec::new();
    for index in 0..options.pushers {
        let name = format!("pusher-{index}");
        let stream = account.stream(&name, Promise::AtLeastOnce);
        let aim = match index % 3 {
            2 => Aim::All,
            _ => Aim::Some(devices.clone()),
        };
        if matches!(aim, Aim::All) {
            everybody
                .iter()
                .for_each(|receiver| account.owe(*receiver, stream));
        }
        pushers.push(Pusher {
            name,
            stream,
            aim,
            rate: options.rate,
            shared: shared.clone(),
            rng: Rng::new(rng.draw()),
        });
    }
    (roles, pushers)
}
