//! In doubt: another node may have taken a durable subscription that this one does not route by. What is to be kept waits until the store was read again.
//!
//! A log can be kept for all filters meanwhile, but the member of a shared subscription that gets a message is chosen before the message is kept, and who is
//! not known cannot be chosen.

use campanile_mqtt::QoS;

use super::Shard;
use crate::{
    ids::{AppId, ClientKey, ConnId, Millis},
    mail::ClusterMail,
    store::Will,
};

/// Until a will is due again for which the store could not be read.
const WILL_AGAIN_MS: u64 = 1000;

/// Whether the store is read for what a client has sent, counted in bytes from the first that is not consumed.
#[derive(Clone, Copy, Debug, Default)]
pub enum Look {
    /// Nothing was sent in doubt.
    #[default]
    Needless,
    /// So many bytes were there when the store was to be read.
    Waits {
        /// When that was.
        since: Millis,
        /// How many.
        bytes: usize,
    },
    /// All is known that so many bytes may ask for, unless the store could not be read.
    Done {
        /// How many.
        bytes: usize,
        /// It could not be read.
        failed: bool,
    },
}

/// Whether a packet is a PUBLISH that somebody may need later, by its first byte.
pub(super) fn may_be_kept(first: u8) -> bool {
    first >> 4 == 3 && first & 0b110 != 0
}

impl Shard {
    /// Whether a connection's next packet, at these bytes of its input, waits for a look at the store.
    pub(super) fn must_look(
        &mut self,
        slot: u32,
        packet: std::ops::Range<usize>,
        input: usize,
    ) -> bool {
        if !self.is_in_doubt() {
            return false;
        }
        let now = self.now;
        let Some(live) = self.live_mut(slot) else {
            return false;
        };
        let (conn, app) = (live.conn, live.app);
        let look = &mut live.rare().look;
        match *look {
            Look::Done { bytes, .. } if packet.end <= bytes => return false,
            Look::Waits { .. } => {}
            Look::Done { .. } | Look::Needless => {
                let bytes = input - packet.start;
                *look = Look::Waits { since: now, bytes };
                let app = self.apps[usize::from(app)].id.clone();
                self.mail_hub(ClusterMail::Look(app));
                if let Some(cluster) = &mut self.cluster {
                    cluster.looking.push(conn);
                }
            }
        }
        if let Some(live) = self.live_mut(slot) {
            live.paused = true;
        }
        true
    }

    /// A connection's input was taken as far as possible: what is left is counted anew.
    pub(super) fn end_look(&mut self, slot: u32) {
        if let Some(rare) = self.live_mut(slot).and_then(|live| live.rare.as_mut())
            && matches!(rare.look, Look::Done { .. })
        {
            rare.look = Look::Needless;
        }
    }

    /// The store was read, or (`None`) could not be: what waited for that goes on.
    pub(super) fn on_looked(&mut self, app: &AppId, asked: Option<Millis>) {
        self.publish_looked_wills(app, asked);
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        for conn in std::mem::take(&mut cluster.looking) {
            if !self.goes_on(conn, app, asked)
                && let Some(cluster) = &mut self.cluster
            {
                cluster.looking.push(conn);
            }
        }
    }

    /// A will is due, and who is to have it is not certain: the store is read first. Until it is published, the store has it.
    pub(super) fn look_before_will(&mut self, client: &ClientKey, will: &Will) {
        let now = self.now;
        self.mail_hub(ClusterMail::Look(client.app.clone()));
        if let Some(cluster) = &mut self.cluster {
            cluster
                .wills_looking
                .push((now, client.clone(), will.clone()));
        }
    }

    /// Publishes the wills for which the store was read. If it could not be, it could not keep them either: they are due again.
    fn publish_looked_wills(&mut self, app: &AppId, asked: Option<Millis>) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let is_looked = |(since, client, _): &mut (Millis, ClientKey, Will)| {
            client.app == *app && asked.is_none_or(|asked| asked > *since)
        };
        let looked: Vec<_> = cluster.wills_looking.extract_if(.., is_looked).collect();
        for (_, client, will) in looked {
            match asked {
                Some(_) => self.publish_will_now(&client, &will),
                None => {
                    let again = Millis(self.now.0 + WILL_AGAIN_MS);
                    self.wills.insert_final(again, client, will);
                }
            }
        }
    }

    /// Whether a connection waits no longer.
    fn goes_on(&mut self, conn: ConnId, app: &AppId, asked: Option<Millis>) -> bool {
        let Some(of) = self.answered(conn).map(|live| live.app) else {
            return true;
        };
        if self.apps[usize::from(of)].id != *app {
            return false;
        }
        let live = self.answered(conn).expect("just seen");
        let look = &mut live.rare().look;
        let Look::Waits { since, bytes } = *look else {
            return true;
        };
        if asked.is_some_and(|asked| asked <= since) {
            return false;
        }
        let failed = asked.is_none();
        *look = Look::Done { bytes, failed };
        if std::mem::take(&mut live.paused) {
            self.effects.resume.push(conn);
        }
        true
    }

    /// Whether a message must be refused: who is to have it could not be found out.
    pub(super) fn is_blind(&self, slot: u32, qos: QoS) -> bool {
        let rare = self.live(slot).and_then(|live| live.rare.as_ref());
        let failed = rare.is_some_and(|rare| matches!(rare.look, Look::Done { failed: true, .. }));
        failed && qos > QoS::AtMostOnce && self.is_in_doubt()
    }
}
