//! Every message comes out as it went in.

use campanile_broker::{
    cluster::peer::{Answer, Connected, Imagined, LiveCount, Load, Question},
    ids::{ClientKey, Epoch, MessageId, Millis, Offset, ShardId},
    lane::Lane,
    mail::{Interest, Member},
    store::{Change, DurableMember, InboxEntry, InboxItem, LogEntry, LogKind},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::{Message as _, bytes::BytesMut};

use super::*;
use crate::peers::{
    convert::{Decoder, Encoder},
    frame,
    queue::weight,
    wire::{self, Carried},
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9/+#é$]{1,20}".prop_map(Arc::from)
}

fn app() -> impl Strategy<Value = AppId> {
    "[a-z]{1,3}".prop_map(|name| AppId::new(&name))
}

fn client() -> impl Strategy<Value = ClientKey> {
    (app(), text()).prop_map(|(app, client_id)| ClientKey { app, client_id })
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn any_message() -> impl Strategy<Value = Arc<Message>> {
    let content = (any::<u128>(), any::<bool>(), text(), bytes(30), bytes(300));
    let rest = (
        qos(),
        any::<bool>(),
        option::of(any::<u64>()),
        option::of("[a-z]{0,20}".prop_map(Arc::from)),
        option::of(bytes(30)),
    );
    (content, rest).prop_map(|((id, push, topic, properties, payload), rest)| {
        let kind = if push { Kind::Push } else { Kind::Publish };
        let mut message = Message::new(MessageId(id), kind, &topic, &properties, &payload);
        message.qos = rest.0;
        message.retain = rest.1;
        message.expires_at = rest.2.map(Millis);
        message.publisher = rest.3;
        message.audience = rest.4.map(prost::bytes::Bytes::from);
        Arc::new(message)
    })
}

fn interest() -> impl Strategy<Value = Interest> {
    let member = (
        qos(),
        any::<[bool; 3]>(),
        any::<u64>(),
        option::of(any::<u32>()),
    );
    let member = member.prop_map(|(qos, flags, epoch, subscription_id)| Member {
        shard: ShardId(0),
        qos,
        durable: flags[0],
        live: flags[1],
        subscription_id,
        retain_as_published: flags[2],
        epoch: Epoch(epoch),
    });
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(filter, present)| Interest::Live { filter, present }),
        (text(), any::<bool>()).prop_map(|(filter, present)| Interest::Durable { filter, present }),
        (text(), text(), option::of(member)).prop_map(|(filter, client_id, member)| {
            Interest::Member {
                filter,
                client_id,
                member,
            }
        }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let member = (qos(), option::of(any::<u32>()), any::<bool>());
    let member = member.prop_map(
        |(qos, subscription_id, retain_as_published)| DurableMember {
            qos,
            subscription_id,
            retain_as_published,
        },
    );
    prop_oneof![
        (text(), option::of(any_message()))
            .prop_map(|(topic, message)| Change::Retained { topic, message }),
        (text(), any::<bool>()).prop_map(|(filter, present)| Change::Filter { filter, present }),
        (text(), text(), option::of(member)).prop_map(|(filter, client_id, member)| {
            Change::Member {
                filter,
                client_id,
                member,
            }
        }),
        (text(), option::of(bytes(300))).prop_map(|(client_id, profile)| Change::Profile {
            client_id,
            profile: profile.map(prost::bytes::Bytes::from),
        }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let lag = (option::of(any::<u32>()), any::<bool>());
    let connected = (
        any::<(u64, u8, u32, u32)>(),
        any::<u64>(),
        option::of(any::<std::net::SocketAddrV4>()),
        vec(text(), 0..3),
        lag,
    )
        .prop_map(
            |(
                (epoch, level, subscriptions, flying),
                since,
                peer,
                filters,
                (behind, inbox_waits),
            )| Connected {
                epoch: Epoch(epoch),
                protocol_level: level,
                subscriptions,
                in_flight: flying,
                since: Millis(since),
                peer: peer.map(Into::into),
                filters,
                behind,
                inbox_waits,
            },
        );
    prop_oneof![
        option::of(connected).prop_map(Answer::Here),
        any::<(u64, u64)>().prop_map(|(connections, capacity)| Answer::Load(Load {
            connections,
            capacity
        })),
        any::<(u64, u64)>()
            .prop_map(|(known, others)| Answer::ThisMany(LiveCount { known, others })),
    ]
}

fn log() -> impl Strategy<Value = LogKind> {
    prop_oneof![Just(LogKind::Push), any::<u8>().prop_map(LogKind::Topic)]
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    let ticket = any::<u64>;
    let offset = || any::<u64>().prop_map(Offset);
    prop_oneof![
        Just(PeerMessage::InterestBegins),
        (app(), interest(), ticket()).prop_map(|(app, change, ticket)| PeerMessage::Interest {
            app,
            change,
            ticket
        }),
        Just(PeerMessage::InterestComplete),
        ticket().prop_map(|ticket| PeerMessage::InterestKnown { ticket }),
        (app(), any_message()).prop_map(|(app, message)| PeerMessage::Deliver { app, message }),
        (app(), any_message(), text(), text(), ticket()).prop_map(
            |(app, message, filter, client_id, ticket)| PeerMessage::DeliverShared {
                app,
                message,
                filter,
                client_id,
                ticket
            }
        ),
        ticket().prop_map(|ticket| PeerMessage::SharedDone { ticket }),
        (app(), log(), (offset(), offset(), offset()), any_message()).prop_map(
            |(app, log, (previous, offset, changes), message)| PeerMessage::Log {
                app,
                log,
                previous,
                entry: LogEntry { offset, message },
                changes,
            }
        ),
        (app(), offset(), offset(), change()).prop_map(|(app, previous, offset, change)| {
            PeerMessage::Change {
                app,
                previous,
                offset,
                change,
            }
        }),
        (app(), offset()).prop_map(|(app, offset)| PeerMessage::ChangesKnown { app, offset }),
        (
            client(),
            (offset(), offset()),
            any_message(),
            qos(),
            any::<bool>(),
            vec(any::<u32>(), 0..4),
            (select(&Lane::ALL[..]), option::of(offset()))
        )
            .prop_map(
                |(client, (previous, offset), message, qos, retain, ids, (lane, replaced))| {
                    PeerMessage::Inbox {
                        client,
                        previous,
                        entry: InboxEntry {
                            offset,
                            item: InboxItem {
                                message,
                                qos,
                                retain,
                                subscription_ids: ids.into(),
                                lane,
                            },
                        },
                        replaced,
                    }
                }
            ),
        (app(), option::of(vec(text(), 0..5)), any_message()).prop_map(
            |(app, clients, message)| PeerMessage::Instant {
                app,
                clients: clients.map(Arc::from),
                message,
            }
        ),
        (client(), any::<u64>(), any::<bool>(), ticket()).prop_map(
            |(client, epoch, resumes, ticket)| PeerMessage::Release {
                client,
                epoch: Epoch(epoch),
                resumes,
                ticket,
            }
        ),
        ticket().prop_map(|ticket| PeerMessage::Released { ticket }),
        (ticket(), client()).prop_map(|(ticket, client)| PeerMessage::Ask {
            ticket,
            question: Question::WhereIs(client)
        }),
        (ticket(), client()).prop_map(|(ticket, client)| PeerMessage::Ask {
            ticket,
            question: Question::Kick(client)
        }),
        ticket().prop_map(|ticket| PeerMessage::Ask {
            ticket,
            question: Question::Load
        }),
        (ticket(), app(), any::<u128>(), option::of(bytes(300))).prop_map(
            |(ticket, app, push, audience)| PeerMessage::Ask {
                ticket,
                question: Question::HowMany(Imagined {
                    app,
                    push: MessageId(push),
                    audience: audience.map(prost::bytes::Bytes::from),
                })
            }
        ),
        (ticket(), answer()).prop_map(|(ticket, answer)| PeerMessage::Answer { ticket, answer }),
    ]
}

/// `Debug` of a message leaves its bytes out.
fn content(message: &PeerMessage) -> Option<Message> {
    match message {
        PeerMessage::Deliver { message, .. }
        | PeerMessage::DeliverShared { message, .. }
        | PeerMessage::Instant { message, .. } => Some(Message::clone(message)),
        PeerMessage::Log { entry, .. } => Some(Message::clone(&entry.message)),
        PeerMessage::Inbox { entry, .. } => Some(Message::clone(&entry.item.message)),
        PeerMessage::Change {
            change: Change::Retained { message, .. },
            ..
        } => message.as_deref().cloned(),
        _ => None,
    }
}

proptest! {
    #[test]
    fn every_message_comes_out_as_it_went_in(messages in vec(peer_message(), 1..20)) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut buffer = BytesMut::new();
        for message in &messages {
            frame::put(&encoder.frame(message.clone()), usize::MAX, &mut buffer).unwrap();
        }
        for message in &messages {
            let frame = frame::take(&mut buffer, usize::MAX).unwrap().unwrap();
            let frame = wire::Frame::decode(frame).unwrap();
            let read = decoder.message(frame).unwrap().unwrap();
            prop_assert_eq!(format!("{message:?}"), format!("{read:?}"));
            prop_assert_eq!(content(message), content(&read));
        }
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn message_is_written_as_the_schema_says(message in any_message()) {
        let carried = Carried::Out(message);
        let bytes = carried.encode_to_vec();
        prop_assert_eq!(bytes.len(), carried.encoded_len());
        let published = wire::Published::decode(&bytes[..]).unwrap();
        prop_assert_eq!(published.encode_to_vec(), bytes);
    }

    #[test]
    fn no_frame_is_much_larger_than_its_weight(message in peer_message()) {
        let weight = weight(&message);
        prop_assert!(Encoder::default().frame(message).encoded_len() <= weight);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in bytes(200)) {
        if let Ok(frame) = wire::Frame::decode(&bytes[..]) {
            let _ = Decoder::default().message(frame);
        }
    }
}

#[test]
fn wire_format_stays_as_it_is() {
    let frame = Encoder::default().frame(deliver(QoS::AtLeastOnce, b"hi"));
    let hex: String = frame
        .encode_to_vec()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "321b0a03617070121411070000000000000020014203612f6252026869"
    );
}

#[test]
fn frame_is_taken_only_when_it_is_complete() {
    let mut whole = BytesMut::new();
    frame::put(&wire::Ticket { ticket: 300 }, 10, &mut whole).unwrap();
    assert_eq!(whole[..], [0, 0, 0, 3, 0x08, 0xac, 0x02]);
    let mut buffer = BytesMut::new();
    for byte in &whole[..6] {
        buffer.extend_from_slice(&[*byte]);
        assert_eq!(frame::take(&mut buffer, 3), Ok(None));
    }
    buffer.extend_from_slice(&whole[6..]);
    assert!(frame::take(&mut buffer, 2).is_err());
    assert_eq!(
        frame::take(&mut buffer, 3).unwrap().unwrap()[..],
        whole[4..]
    );
}
