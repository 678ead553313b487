//! The QoS 1 and 2 messages that this end receives. MQTT 5.0 sections 4.3.3 and 4.9.

use crate::{PacketId, QoS};

/// Which QoS 2 messages of a session have arrived and are not yet released, and how many exchanges are under way.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// By identifier.
    received: Vec<Received>,
    /// Exchanges of this connection that are not over.
    under_way: u16,
    receive_maximum: u16,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    packet_id: PacketId,
    /// Whether it is one of those under way on this connection.
    counted: bool,
}

/// What to do with a PUBLISH of QoS 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A message to deliver.
    New,
    /// A QoS 2 message that had arrived: acknowledge it, deliver nothing.
    Duplicate,
    /// The sender went past our receive maximum: disconnect with reason 0x93.
    QuotaExceeded,
}

impl Inbound {
    /// Nothing received; the sender may have `receive_maximum` exchanges under way.
    pub const fn new(receive_maximum: u16) -> Inbound {
        Inbound {
            received: Vec::new(),
            under_way: 0,
            receive_maximum,
        }
    }

    /// Begins a connection: the count of exchanges under way starts anew, received identifiers stay.
    ///
    /// Do not finish exchanges of QoS 1 that began on an earlier connection.
    pub fn reconnect(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.under_way = 0;
        for received in &mut self.received {
            received.counted = false;
        }
    }

    /// Judges a PUBLISH. An exchange of QoS 1 counts until [`Inbound::finish_qos1`], one of QoS 2 until
    /// [`Inbound::finish_qos2`] or [`Inbound::on_pubrec_error`].
    ///
    /// QoS 0 is always new.
    pub fn on_publish(&mut self, packet_id: PacketId, qos: QoS) -> Verdict {
        let full = self.under_way >= self.receive_maximum;
        match qos {
            QoS::AtMostOnce => return Verdict::New,
            QoS::AtLeastOnce if full => return Verdict::QuotaExceeded,
            QoS::AtLeastOnce => {}
            QoS::ExactlyOnce => match self.position(packet_id) {
                Ok(index) if self.received[index].counted => return Verdict::Duplicate,
                _ if full => return Verdict::QuotaExceeded,
                Ok(index) => {
                    self.received[index].counted = true;
                    self.under_way += 1;
                    return Verdict::Duplicate;
                }
                Err(index) => self.received.insert(
                    index,
                    Received {
                        packet_id,
                        counted: true,
                    },
                ),
            },
        }
        self.under_way += 1;
        Verdict::New
    }

    /// PUBACK was sent, with whatever reason.
    pub fn finish_qos1(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// PUBREC was sent with an error: the exchange is over, and the identifier may come again with a new message.
    pub fn on_pubrec_error(&mut self, packet_id: PacketId) {
        self.forget(packet_id);
    }

    /// Whether a PUBREL belongs to a received message. If so, send PUBCOMP and call [`Inbound::finish_qos2`]; if not,
    /// send PUBCOMP with reason 0x92 (before 5.0 without a reason).
    pub fn on_pubrel(&self, packet_id: PacketId) -> bool {
        self.position(packet_id).is_ok()
    }

    /// PUBCOMP was sent: the identifier may come again with a new message.
    pub fn finish_qos2(&mut self, packet_id: PacketId) {
        self.forget(packet_id);
    }

    /// Adds a received identifier from storage, which does not count as under way.
    pub fn restore(&mut self, packet_id: PacketId) {
        if let Err(index) = self.position(packet_id) {
            let counted = false;
            self.received.insert(index, Received { packet_id, counted });
        }
    }

    /// Identifiers of QoS 2 messages that arrived and are not yet released, ascending.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.received.iter().map(|received| received.packet_id)
    }

    /// Whether no QoS 2 message waits for its release.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Exchanges of this connection that are not over.
    pub fn under_way(&self) -> u16 {
        self.under_way
    }

    fn position(&self, packet_id: PacketId) -> Result<usize, usize> {
        self.received
            .binary_search_by_key(&packet_id, |received| received.packet_id)
    }

    fn forget(&mut self, packet_id: PacketId) {
        let Ok(index) = self.position(packet_id) else {
            return;
        };
        if self.received.remove(index).counted {
            self.under_way = self.under_way.saturating_sub(1);
        }
        if self.received.is_empty() {
            // Sessions are idle most of the time: an empty one keeps no memory.
            self.received = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    #[test]
    fn empty_is_small() {
        assert!(size_of::<Inbound>() <= 32);
    }

    #[test]
    fn qos_2_is_new_once_until_it_is_complete() {
        let mut inbound = Inbound::new(10);
        assert_eq!(inbound.on_publish(id(1), QoS::ExactlyOnce), Verdict::New);
        assert_eq!(
            inbound.on_publish(id(1), QoS::ExactlyOnce),
            Verdict::Duplicate
        );
        assert!(inbound.on_pubrel(id(1)));
        inbound.finish_qos2(id(1));
        assert!(!inbound.on_pubrel(id(1)));
        assert_eq!(inbound.on_publish(id(1), QoS::ExactlyOnce), Verdict::New);
        inbound.on_pubrec_error(id(1));
        assert_eq!(inbound.on_publish(id(1), QoS::ExactlyOnce), Verdict::New);
    }

    #[test]
    fn quota_counts_both_qualities_of_service() {
        let mut inbound = Inbound::new(2);
        assert_eq!(inbound.on_publish(id(1), QoS::AtLeastOnce), Verdict::New);
        assert_eq!(inbound.on_publish(id(2), QoS::ExactlyOnce), Verdict::New);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(inbound.on_publish(id(3), qos), Verdict::QuotaExceeded);
        }
        assert_eq!(
            inbound.on_publish(id(2), QoS::ExactlyOnce),
            Verdict::Duplicate,
            "counted already"
        );
        inbound.finish_qos1();
        assert_eq!(inbound.on_publish(id(3), QoS::ExactlyOnce), Verdict::New);
    }

    #[test]
    fn received_messages_count_anew_on_the_next_connection() {
        let mut inbound = Inbound::new(2);
        inbound.restore(id(7));
        inbound.restore(id(5));
        inbound.restore(id(7));
        inbound.reconnect(1);
        assert_eq!(inbound.received().collect::<Vec<_>>(), [id(5), id(7)]);
        assert_eq!(inbound.under_way(), 0);
        assert_eq!(
            inbound.on_publish(id(7), QoS::ExactlyOnce),
            Verdict::Duplicate
        );
        assert_eq!(
            inbound.on_publish(id(5), QoS::ExactlyOnce),
            Verdict::QuotaExceeded
        );
        inbound.finish_qos2(id(5));
        assert_eq!(inbound.under_way(), 1);
        inbound.finish_qos2(id(7));
        assert_eq!(inbound.under_way(), 0);
        assert!(inbound.is_empty());
    }
}
