//! A client that publishes a numbered sequence through a window.

use campanile_mqtt::{
    PacketId, QoS, Version,
    publish::{self, Head, Outgoing},
};

use crate::{
    fleet::{LinkId, Links},
    stamp::Stamp,
};

/// A sequence of messages on one topic, of which at most `window` are under way.
pub struct Publisher {
    link: LinkId,
    source: u32,
    topic: String,
    plan: Plan,
    sent: u64,
    acknowledged: u64,
    arrived: u64,
    /// Scratch.
    bytes: Vec<u8>,
}

/// What all publishers of a scenario have in common.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the publishes.
    pub qos: QoS,
    /// Messages that may be under way.
    pub window: u64,
    /// Messages of each publisher.
    pub messages: u64,
    /// Bytes of each message.
    pub payload: usize,
}

impl Publisher {
    /// The publisher number `source`, on a link that is connected.
    pub fn new(link: LinkId, source: u32, topic: String, plan: Plan) -> Publisher {
        Publisher {
            link,
            source,
            topic,
            plan,
            sent: 0,
            acknowledged: 0,
            arrived: 0,
            bytes: Vec::new(),
        }
    }

    /// Books that one message reached all its receivers.
    pub fn on_arrived(&mut self) {
        self.arrived += 1;
    }

    /// Books that the server acknowledged one message.
    pub fn on_acknowledged(&mut self) {
        self.acknowledged += 1;
    }

    /// Whether all messages are sent, and acknowledged where the quality of service says so.
    pub fn is_done(&self) -> bool {
        self.sent == self.plan.messages
            && (self.plan.qos == QoS::AtMostOnce || self.acknowledged == self.sent)
    }

    /// Sends what the window allows. A message is under way until it has reached its receivers *and* is acknowledged: a server
    /// that acknowledges early gets no more to hold than one that acknowledges late.
    pub fn pump(&mut self, links: &mut Links) {
        let (mut ended, mut window) = (self.arrived, self.plan.window);
        if self.plan.qos != QoS::AtMostOnce {
            ended = ended.min(self.acknowledged);
            window = window.min(links.receive_maximum());
        }
        let until = (ended + window).min(self.plan.messages);
        if self.sent >= until {
            return;
        }
        let version = links.options().version;
        let run = links.options().run;
        let sent_ns = links.tick();
        links.send(self.link, |out| {
            while self.sent < until {
                let stamp = Stamp {
                    run,
                    source: self.source,
                    sequence: self.sent,
                    sent_ns,
                };
                stamp.write(self.plan.payload, &mut self.bytes);
                let qos = self.plan.qos;
                write_publish(&self.topic, &self.bytes, qos, self.sent, version, out);
                self.sent += 1;
            }
        });
    }
}

/// Appends the PUBLISH number `sequence` of a link. Packet identifiers go round, which is fine for fewer than 65,535 under way.
pub fn write_publish(
    topic: &str,
    payload: &[u8],
    qos: QoS,
    sequence: u64,
    version: Version,
    out: &mut Vec<u8>,
) {
    let message = Outgoing {
        topic,
        payload,
        forwarded: &[],
        message_expiry: None,
    };
    let packet_id = PacketId::new((sequence % 65_535) as u16 + 1);
    let head = Head {
        qos,
        packet_id: packet_id.filter(|_| qos != QoS::AtMostOnce),
        ..Head::default()
    };
    publish::encode(&message, &head, version, out);
}
