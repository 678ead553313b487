//! Valid packets at random. Their memory is leaked, so that they can own nothing.

use campanile_mqtt::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{id, props, subscribe_filters, unsubscribe_filters};

pub fn version() -> impl Strategy<Value = Version> {
    select(&super::ALL_VERSIONS[..])
}

/// A version and a packet that it can say.
pub fn packet_of_a_version() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

pub fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let ack = |reasons: &'static [u8]| ack(version, reasons);
    let all = prop_oneof![
        3 => connect(version).prop_map(Packet::Connect),
        2 => connack(version).prop_map(Packet::ConnAck),
        4 => publish(version).prop_map(Packet::Publish),
        1 => ack(&[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubAck),
        1 => ack(&[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubRec),
        1 => ack(&[0, 0x92]).prop_map(Packet::PubRel),
        1 => ack(&[0, 0x92]).prop_map(Packet::PubComp),
        2 => subscribe(version).prop_map(Packet::Subscribe),
        1 => suback(version).prop_map(Packet::SubAck),
        1 => unsubscribe(version).prop_map(Packet::Unsubscribe),
        1 => unsuback(version).prop_map(Packet::UnsubAck),
        1 => select(vec![Packet::PingReq, Packet::PingResp]),
        1 => disconnect(version).prop_map(Packet::Disconnect),
    ];
    if version.is_v5() {
        prop_oneof![15 => all, 1 => auth().prop_map(Packet::Auth)].boxed()
    } else {
        all.boxed()
    }
}

// Words.

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => "[a-z0-9/$]{0,8}", 1 => "[^\\x00]{0,40}", 1 => "[a-z]{120,300}"]
        .prop_map(|text| &*text.leak())
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![4 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 120..300)]
        .prop_map(|bytes| &*bytes.leak())
}

pub fn topic_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => "[a-c/$]{1,8}", 1 => "[^\\x00+#]{1,20}"].prop_map(|name| &*name.leak())
}

pub fn topic_filter() -> impl Strategy<Value = &'static str> {
    let plain = (
        vec(select(vec!["a", "b", "c", "+", "", "$x"]), 1..5),
        any::<bool>(),
    )
        .prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        });
    let plain = plain.prop_filter("not empty", |filter| !filter.is_empty());
    prop_oneof![
        Just(""),
        "\\$share/[a-z]{1,3}/".prop_map(|share| &*share.leak())
    ]
    .prop_flat_map(move |share| {
        plain
            .clone()
            .prop_map(move |filter| &*format!("{share}{filter}").leak())
    })
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = Reason> {
    select(codes).prop_map(|code| Reason::from_code(code).unwrap())
}

// Properties.

type One = BoxedStrategy<Property<'static>>;

/// Any of `singles`, at most once each, and user properties, in any order.
fn block(version: Version, singles: Vec<One>) -> BoxedStrategy<Properties<'static>> {
    block_with(version, singles, Vec::new())
}

fn block_with(
    version: Version,
    singles: Vec<One>,
    repeated: Vec<One>,
) -> BoxedStrategy<Properties<'static>> {
    if !version.is_v5() {
        return Just(Properties::EMPTY).boxed();
    }
    let singles = singles
        .into_iter()
        .map(|single| option::weighted(0.3, single))
        .collect::<Vec<_>>();
    let user = (text(), text()).prop_map(Property::UserProperty).boxed();
    let repeated = vec(
        proptest::strategy::Union::new([repeated, vec![user]].concat()),
        0..3,
    );
    (singles, repeated)
        .prop_map(|(singles, repeated)| {
            singles
                .into_iter()
                .flatten()
                .chain(repeated)
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(|list| props(&list))
        .boxed()
}

fn one<T: std::fmt::Debug + 'static>(
    values: impl Strategy<Value = T> + 'static,
    property: fn(T) -> Property<'static>,
) -> One {
    values.prop_map(property).boxed()
}

fn message() -> Vec<One> {
    vec![
        one(any::<bool>(), Property::PayloadFormat),
        one(any::<u32>(), Property::MessageExpiry),
        one(text(), Property::ContentType),
        one(topic_name(), Property::ResponseTopic),
        one(binary(), Property::CorrelationData),
    ]
}

fn limits() -> Vec<One> {
    vec![
        one(any::<u32>(), Property::SessionExpiry),
        one(1..=u16::MAX, Property::ReceiveMaximum),
        one(1..=u32::MAX, Property::MaximumPacketSize),
        one(any::<u16>(), Property::TopicAliasMaximum),
        one(text(), Property::AuthMethod),
    ]
}

/// Data needs a method, so both are there or only the method.
fn with_auth_data(
    properties: Properties<'static>,
    data: Option<&'static [u8]>,
) -> Properties<'static> {
    match data {
        Some(data) if properties.auth_method().is_some() => props(
            &properties
                .iter()
                .chain([Property::AuthData(data)])
                .collect::<Vec<_>>(),
        ),
        _ => properties,
    }
}

// Packets.

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let properties = [
        limits(),
        vec![
            one(any::<bool>(), Property::RequestProblemInformation),
            one(any::<bool>(), Property::RequestResponseInformation),
        ],
    ]
    .concat();
    let head = (
        any::<bool>(),
        any::<u16>(),
        block(version, properties),
        option::of(binary()),
        text(),
    );
    let tail = (
        option::of(will(version)),
        option::of(text()),
        option::of(binary()),
    );
    (head, tail).prop_map(
        move |((clean, keep_alive, properties, data, client_id), (will, username, password))| {
            Connect {
                version,
                clean_start: clean || version == Version::V311 && client_id.is_empty(),
                keep_alive,
                properties: with_auth_data(properties, data),
                client_id: if version == Version::V31 && client_id.is_empty() {
                    "c"
                } else {
                    client_id
                },
                will,
                username,
                password: password.filter(|_| version.is_v5() || username.is_some()),
            }
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let properties = [message(), vec![one(any::<u32>(), Property::WillDelay)]].concat();
    (
        qos(),
        any::<bool>(),
        block(version, properties),
        topic_name(),
        binary(),
    )
        .prop_map(|(qos, retain, properties, topic, payload)| Will {
            qos,
            retain,
            properties,
            topic,
            payload,
        })
}

const CONNACK_REASONS: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];

fn connack(version: Version) -> impl Strategy<Value = ConnAck<'static>> {
    let properties = [
        limits(),
        vec![
            one(
                select(vec![QoS::AtMostOnce, QoS::AtLeastOnce]),
                Property::MaximumQoS,
            ),
            one(any::<bool>(), Property::RetainAvailable),
            one(text(), Property::AssignedClientId),
            one(text(), Property::ReasonString),
            one(any::<bool>(), Property::WildcardSubscriptionAvailable),
            one(any::<bool>(), Property::SubscriptionIdsAvailable),
            one(any::<bool>(), Property::SharedSubscriptionAvailable),
            one(any::<u16>(), Property::ServerKeepAlive),
            one(text(), Property::ResponseInformation),
            one(text(), Property::ServerReference),
        ],
    ]
    .concat();
    let codes: &[u8] = if version.is_v5() {
        CONNACK_REASONS
    } else {
        &[0, 0x84, 0x85, 0x86, 0x87, 0x88]
    };
    (
        any::<bool>(),
        reason(codes),
        block(version, properties),
        option::of(binary()),
    )
        .prop_map(move |(present, reason, properties, data)| ConnAck {
            session_present: present && reason == Reason::Success && version != Version::V31,
            reason,
            properties: with_auth_data(properties, data),
        })
}

pub fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    let properties = [message(), vec![one(1..=u16::MAX, Property::TopicAlias)]].concat();
    let ids = one(1..=268_435_455u32, Property::SubscriptionId);
    let flags = (any::<bool>(), qos(), any::<bool>(), any::<bool>());
    (
        flags,
        packet_id(),
        topic_name(),
        block_with(version, properties, vec![ids]),
        binary(),
    )
        .prop_map(
            |((dup, qos, retain, by_alias), packet_id, topic, properties, payload)| Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if by_alias && properties.topic_alias().is_some() {
                    ""
                } else {
                    topic
                },
                packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
                properties,
                payload,
            },
        )
}

fn answer() -> Vec<One> {
    vec![one(text(), Property::ReasonString)]
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack<'static>> {
    let codes = if version.is_v5() { codes } else { &[0] };
    (packet_id(), reason(codes), block(version, answer())).prop_map(
        |(packet_id, reason, properties)| Ack {
            packet_id,
            reason,
            properties,
        },
    )
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| {
            if version.is_v5() {
                SubscriptionOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                }
            } else {
                SubscriptionOptions {
                    qos,
                    ..Default::default()
                }
            }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let properties = vec![one(1..=268_435_455u32, Property::SubscriptionId)];
    let filters = vec((topic_filter(), options(version)), 1..5).prop_map(|mut list| {
        for (filter, options) in &mut list {
            options.no_local &= !filter.starts_with("$share/");
        }
        subscribe_filters(&list)
    });
    (packet_id(), block(version, properties), filters).prop_map(
        |(packet_id, properties, filters)| Subscribe {
            packet_id,
            properties,
            filters,
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = SubAck<'static>> {
    let codes: &[u8] = if version.is_v5() {
        &[
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ]
    } else {
        &[0, 1, 2, 0x80]
    };
    (
        packet_id(),
        block(version, answer()),
        vec(select(codes), 1..5),
    )
        .prop_map(|(packet_id, properties, codes)| SubAck {
            packet_id,
            properties,
            codes: codes.leak(),
        })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    let filters = vec(topic_filter(), 1..5).prop_map(|list| unsubscribe_filters(&list));
    (packet_id(), block(version, vec![]), filters).prop_map(|(packet_id, properties, filters)| {
        Unsubscribe {
            packet_id,
            properties,
            filters,
        }
    })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck<'static>> {
    let codes = vec(select(&[0u8, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91][..]), 1..5);
    (packet_id(), block(version, answer()), codes).prop_map(
        move |(packet_id, properties, codes)| UnsubAck {
            packet_id,
            properties,
            codes: if version.is_v5() { codes.leak() } else { &[] },
        },
    )
}

const DISCONNECT_REASONS: &[u8] = &[
    0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect<'static>> {
    let properties = vec![
        one(any::<u32>(), Property::SessionExpiry),
        one(text(), Property::ReasonString),
        one(text(), Property::ServerReference),
    ];
    let codes: &[u8] = if version.is_v5() {
        DISCONNECT_REASONS
    } else {
        &[0]
    };
    (reason(codes), block(version, properties))
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    let properties = vec![
        one(text(), Property::AuthMethod),
        one(text(), Property::ReasonString),
    ];
    (
        reason(&[0, 0x18, 0x19]),
        block(Version::V5, properties),
        option::of(binary()),
    )
        .prop_map(|(reason, properties, data)| {
            let properties = if properties.auth_method().is_some()
                || reason == Reason::Success && properties.is_empty()
            {
                properties
            } else {
                props(
                    &properties
                        .iter()
                        .chain([Property::AuthMethod("m")])
                        .collect::<Vec<_>>(),
                )
            };
            Auth {
                reason,
                properties: with_auth_data(properties, data),
            }
        })
}
