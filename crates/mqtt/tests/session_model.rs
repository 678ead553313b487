//! The session tables against models that are too simple to be wrong.

use campanile_mqtt::session::{AliasesIn, AliasesOut, Inbound, Outbound, PubRec, Verdict};
use campanile_mqtt::{PacketId, QoS};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Send(QoS),
    Acquire,
    Release(prop::sample::Index),
    PubAck(prop::sample::Index),
    PubRec(prop::sample::Index, bool),
    PubComp(prop::sample::Index),
    Stray(u16),
    Reconnect(u16),
    Resend,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => qos().prop_map(Step::Send),
        1 => Just(Step::Acquire),
        1 => index().prop_map(Step::Release),
        3 => index().prop_map(Step::PubAck),
        3 => (index(), prop::bool::weighted(0.8)).prop_map(|(index, success)| Step::PubRec(index, success)),
        3 => index().prop_map(Step::PubComp),
        1 => any::<u16>().prop_map(Step::Stray),
        1 => (1u16..12).prop_map(Step::Reconnect),
        2 => Just(Step::Resend),
    ]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("tests make no identifier 0")
}

/// Every identifier in use, in the order of sending.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    last_id: u16,
    window: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u16,
    /// `None` for an identifier without a message.
    qos: Option<QoS>,
    released: bool,
    tag: u32,
    /// On this connection, as PUBLISH or PUBREL.
    sent: bool,
    counted: bool,
}

impl Model {
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = if self.last_id == u16::MAX {
                1
            } else {
                self.last_id + 1
            };
            if self.entries.iter().all(|entry| entry.id != self.last_id) {
                return self.last_id;
            }
        }
    }

    fn free(&self) -> usize {
        if self.entries.iter().any(|entry| !entry.sent) {
            return 0;
        }
        self.window
            .saturating_sub(self.entries.iter().filter(|entry| entry.counted).count())
    }

    fn pick(&self, index: &prop::sample::Index) -> Option<Entry> {
        (!self.entries.is_empty()).then(|| self.entries[index.index(self.entries.len())].clone())
    }

    fn entry(&mut self, id: u16) -> &mut Entry {
        self.entries
            .iter_mut()
            .find(|entry| entry.id == id)
            .expect("picked from the model")
    }

    fn remove(&mut self, id: u16) {
        self.entries.retain(|entry| entry.id != id);
    }

    fn apply(
        &mut self,
        step: &Step,
        real: &mut Outbound<u32>,
        tag: u32,
    ) -> Result<(), TestCaseError> {
        match step {
            Step::Send(qos) => {
                let expected = (self.free() > 0).then(|| self.next_id());
                if let Some(id) = expected {
                    self.entries.push(Entry {
                        id,
                        qos: Some(*qos),
                        released: false,
                        tag,
                        sent: true,
                        counted: true,
                    });
                }
                prop_assert_eq!(real.send(*qos, tag).map(PacketId::get), expected);
            }
            Step::Acquire => {
                let id = self.next_id();
                self.entries.push(Entry {
                    id,
                    qos: None,
                    released: false,
                    tag,
                    sent: true,
                    counted: false,
                });
                prop_assert_eq!(real.acquire().map(PacketId::get), Some(id));
            }
            Step::Release(index) => {
                let Some(entry) = self.pick(index) else {
                    return Ok(());
                };
                let known = entry.qos.is_none();
                if known {
                    self.remove(entry.id);
                }
                prop_assert_eq!(real.release(id(entry.id)), known);
            }
            Step::PubAck(index) => {
                let Some(entry) = self.pick(index) else {
                    return Ok(());
                };
                let known = entry.qos == Some(QoS::AtLeastOnce);
                if known {
                    self.remove(entry.id);
                }
                prop_assert_eq!(
                    real.on_puback(id(entry.id)).ok(),
                    known.then_some(entry.tag)
                );
            }
            Step::PubRec(index, success) => {
                let Some(entry) = self.pick(index) else {
                    return Ok(());
                };
                let expected = if entry.qos != Some(QoS::ExactlyOnce) {
                    PubRec::Unknown
                } else if !success {
                    self.remove(entry.id);
                    PubRec::Ended(entry.tag)
                } else if entry.released {
                    PubRec::AlreadyReleased
                } else {
                    self.entry(entry.id).released = true;
                    PubRec::Released(entry.tag)
                };
                prop_assert_eq!(real.on_pubrec(id(entry.id), *success), expected);
            }
            Step::PubComp(index) => {
                let Some(entry) = self.pick(index) else {
                    return Ok(());
                };
                if entry.released {
                    self.remove(entry.id);
                }
                prop_assert_eq!(
                    real.on_pubcomp(id(entry.id)),
                    entry.released.then_some(entry.tag)
                );
            }
            Step::Stray(stray) => {
                if *stray != 0 && self.entries.iter().all(|entry| entry.id != *stray) {
                    let stray = id(*stray);
                    prop_assert!(
                        real.on_puback(stray).is_err() && real.on_pubcomp(stray).is_none()
                    );
                    prop_assert!(
                        real.on_pubrec(stray, true) == PubRec::Unknown && !real.release(stray)
                    );
                }
            }
            Step::Reconnect(window) => {
                self.entries.retain(|entry| entry.qos.is_some());
                for entry in &mut self.entries {
                    entry.sent = false;
                    entry.counted = false;
                }
                self.window = usize::from(*window);
                real.reconnect(*window);
            }
            Step::Resend => {
                let counted = self.entries.iter().filter(|entry| entry.counted).count();
                let window = self.window;
                let next = self.entries.iter_mut().find(|entry| !entry.sent);
                let expected =
                    next.filter(|entry| entry.released || counted < window)
                        .map(|entry| {
                            entry.sent = true;
                            entry.counted = !entry.released;
                            (entry.id, entry.qos, entry.released, entry.tag)
                        });
                let resend = real.poll_resend();
                prop_assert_eq!(
                    resend.map(|again| (
                        again.packet_id.get(),
                        Some(again.qos),
                        again.released,
                        again.tag
                    )),
                    expected
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn outbound_does_what_its_model_does(window in 1u16..12, first in any::<u16>(), steps in prop::collection::vec(step(), 0..400)) {
        let mut real = Outbound::new(window);
        let mut model = Model { window: usize::from(window), ..Model::default() };
        if first > 1 {
            // Begin anywhere in the circle of identifiers, so that its end is met too.
            real.restore(id(first - 1), QoS::AtLeastOnce, false, 0);
            real.reconnect(window);
            real.poll_resend();
            real.on_puback(id(first - 1)).expect("was restored");
            model.last_id = first - 1;
        }
        for (tag, step) in steps.iter().enumerate() {
            model.apply(step, &mut real, tag as u32)?;
            prop_assert_eq!(real.len(), model.entries.len());
            prop_assert_eq!(real.is_empty(), model.entries.is_empty());
            prop_assert_eq!(real.free(), model.free());
            let unfinished: Vec<_> = real.unfinished().map(|entry| (entry.packet_id.get(), Some(entry.qos), entry.released, entry.tag)).collect();
            let expected: Vec<_> = model.entries.iter().filter(|entry| entry.qos.is_some()).map(|entry| (entry.id, entry.qos, entry.released, entry.tag)).collect();
            prop_assert_eq!(unfinished, expected);
        }
    }

    #[test]
    fn inbound_keeps_a_set_and_a_count(steps in prop::collection::vec((0u8..5, 1u16..9), 0..200)) {
        const MAXIMUM: u16 = 4;
        let mut real = Inbound::new(MAXIMUM);
        let mut received = std::collections::BTreeSet::new();
        let mut counted = std::collections::BTreeSet::new();
        let mut qos1 = 0;
        for (action, number) in steps {
            let full = qos1 + counted.len() >= usize::from(MAXIMUM);
            match action {
                0 => {
                    let expected = if full { Verdict::QuotaExceeded } else { qos1 += 1; Verdict::New };
                    prop_assert_eq!(real.on_publish(id(number), QoS::AtLeastOnce), expected);
                }
                1 => {
                    let expected = if full && !counted.contains(&number) {
                        Verdict::QuotaExceeded
                    } else {
                        counted.insert(number);
                        if received.insert(number) { Verdict::New } else { Verdict::Duplicate }
                    };
                    prop_assert_eq!(real.on_publish(id(number), QoS::ExactlyOnce), expected);
                }
                2 if qos1 > 0 => {
                    qos1 -= 1;
                    real.finish_qos1();
                }
                2 => {
                    qos1 = 0;
                    counted.clear();
                    real.reconnect(MAXIMUM);
                }
                3 => {
                    prop_assert_eq!(real.on_pubrel(id(number)), received.remove(&number));
                    counted.remove(&number);
                    real.finish_qos2(id(number));
                }
                _ => {
                    received.remove(&number);
                    counted.remove(&number);
                    real.on_pubrec_error(id(number));
                }
            }
            prop_assert_eq!(usize::from(real.under_way()), qos1 + counted.len());
            prop_assert!(real.received().map(PacketId::get).eq(received.iter().copied()));
        }
    }

    #[test]
    fn what_aliases_out_assigns_aliases_in_resolves(maximum in 1u16..5, topics in prop::collection::vec("[a-f]", 0..100)) {
        let mut sender = AliasesOut::new(maximum);
        let mut receiver = AliasesIn::new(maximum);
        for topic in &topics {
            let (alias, with_topic) = sender.assign(topic).expect("aliases are allowed");
            let sent = if with_topic { topic.as_str() } else { "" };
            prop_assert_eq!(receiver.resolve(alias, sent), Ok(topic.as_str()));
        }
    }
}
