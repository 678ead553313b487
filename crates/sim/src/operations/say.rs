//! What clients say, right or wrong.

use campanile_mqtt::{Property, Reason, RetainHandling, SubscriptionOptions, Version};

use super::input::Input;
use crate::packets::{self, Say};

const TOPICS: [&str; 8] = ["a", "a/b", "a/c", "d", "a/b/c", "$x", "push/up", "e/f"];

const FILTERS: [&str; 12] = [
    "a",
    "a/b",
    "#",
    "+",
    "a/+",
    "a/#",
    "+/b",
    "$share/g/a/#",
    "$share/g/a/b",
    "$share/h/#",
    "d",
    "push/in",
];

const SHORT: &str = "x";
const LONG: &str = "a payload that does not fit into a packet of a client that takes only small ones, of which there are some";

/// CONNECT.
pub fn connect(input: &mut Input<'_>, client_id: &str, version: Version) -> Vec<u8> {
    let flags = input.byte();
    let client_id = match flags >> 6 {
        0 if flags & 0x20 != 0 => "",
        1 if flags & 0x20 != 0 => "a",
        _ => client_id,
    };
    let mut connect = packets::connect(client_id)
        .version(version)
        .clean(flags & 1 == 0)
        .keep_alive(if flags & 0x10 == 0 { 0 } else { 10 });
    match input.below(4) {
        0 => {}
        choice => connect = connect.expiry([5, 600, u32::MAX][choice - 1]),
    }
    if flags & 2 != 0 {
        connect = connect.with(Property::ReceiveMaximum(input.below(4) as u16 + 1));
    }
    if flags & 4 != 0 {
        connect = connect.with(Property::TopicAliasMaximum(input.below(4) as u16));
    }
    if flags & 8 != 0 {
        let bytes = input.pick(&[20, 40, 60, 100, 5, 1000]);
        connect = connect.with(Property::MaximumPacketSize(bytes));
    }
    match input.below(4) {
        0 => {
            let choice = input.byte();
            let topic = TOPICS[usize::from(choice) % 6];
            let mut will = packets::will(topic, "will").qos((choice >> 3 & 3).min(2));
            if choice & 0x20 != 0 {
                will = will.retain();
            }
            match choice >> 6 {
                0 => {}
                seconds => will = will.delay([1, 60, 1000][usize::from(seconds) - 1]),
            }
            connect = connect.will(will);
        }
        1 if flags & 0x80 != 0 => connect = connect.with(Property::AuthMethod("m")),
        _ => {}
    }
    connect.bytes(version)
}

/// SUBSCRIBE of one to four filters.
pub fn subscribe(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let choice = input.byte();
    let mut subscribe = packets::subscribe(u16::from(choice >> 5) + 1);
    for _ in 0..=choice & 3 {
        let filter = input.pick(&FILTERS);
        let bits = input.byte();
        let options = SubscriptionOptions {
            qos: packets::qos((bits & 3).min(2)),
            no_local: bits & 4 != 0 && (!filter.starts_with('$') || bits & 0xC0 == 0xC0),
            retain_as_published: bits & 8 != 0,
            retain_handling: [
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ][usize::from(bits >> 4) % 3],
        };
        let options = match version.is_v5() {
            true => options,
            false => packets::options((bits & 3).min(2)),
        };
        subscribe = subscribe.filter_with(filter, options);
    }
    if choice & 4 != 0 {
        subscribe = subscribe.with(Property::SubscriptionId(u32::from(choice >> 4) * 100 + 1));
    }
    subscribe.bytes(version)
}

/// UNSUBSCRIBE of one or two filters.
pub fn unsubscribe(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let choice = input.byte();
    let mut unsubscribe = packets::unsubscribe(u16::from(choice >> 5) + 1);
    for _ in 0..=choice & 1 {
        unsubscribe = unsubscribe.filter(input.pick(&FILTERS));
    }
    unsubscribe.bytes(version)
}

/// PUBLISH.
pub fn publish(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let choice = input.byte();
    let more = input.byte();
    let payload = match more & 3 {
        0 => "",
        1 => LONG,
        _ => SHORT,
    };
    let topic = TOPICS[usize::from(choice & 7)];
    let level = (choice >> 3 & 3).min(2);
    let alias = more & 0x30 == 0x30;
    let topic = match alias && more & 0x40 != 0 {
        true => "",
        false => topic,
    };
    let mut publish = packets::publish(topic, payload).qos(level, u16::from(more >> 2 & 7) + 1);
    if choice & 0x20 != 0 {
        publish = publish.retain();
    }
    if choice & 0x40 != 0 && level > 0 {
        publish = publish.dup();
    }
    if choice & 0x80 != 0 {
        publish = publish.with(Property::MessageExpiry(u32::from(more >> 4)));
    }
    if alias {
        publish = publish.with(Property::TopicAlias(u16::from(choice & 1) + 1));
    }
    if more & 0x80 != 0 {
        publish = publish.with(Property::UserProperty(("k", LONG)));
    }
    match (version.is_v5(), topic) {
        // No codec writes it.
        (false, "") => Vec::new(),
        _ => publish.bytes(version),
    }
}

/// PUBREL of whatever identifier.
pub fn pubrel(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    packets::pubrel(input.below(8) as u16 + 1).bytes(version)
}

/// PUBACK, PUBREC or PUBCOMP of whatever identifier.
pub fn ack(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let choice = input.byte();
    let id = u16::from(choice >> 3 & 7) + 1;
    let fails = choice & 0x40 != 0 && version.is_v5();
    let ack = match choice % 3 {
        0 => packets::puback(id),
        1 => packets::pubrec(id),
        _ if fails => packets::pubcomp(id).reason(Reason::PacketIdentifierNotFound),
        _ => packets::pubcomp(id),
    };
    let ack = match fails && choice % 3 < 2 {
        true => ack.reason(Reason::UnspecifiedError),
        false => ack,
    };
    ack.bytes(version)
}

/// DISCONNECT, with or without the will.
pub fn disconnect(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let choice = input.byte();
    let mut disconnect = packets::disconnect();
    if choice & 1 != 0 && version.is_v5() {
        disconnect = disconnect.reason(Reason::DisconnectWithWill);
    }
    match choice >> 1 & 3 {
        0 | 1 => {}
        2 => disconnect = disconnect.with(Property::SessionExpiry(0)),
        _ => disconnect = disconnect.with(Property::SessionExpiry(60)),
    }
    disconnect.bytes(version)
}
