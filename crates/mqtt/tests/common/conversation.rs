//! A client on a wire that a test reads and writes, with a clock that it turns.

#![allow(dead_code)] // No test uses all of it.

use campanile_mqtt::client::{Client, Event, Message, Options, Publication, WillMessage};
use campanile_mqtt::{PacketId, Properties, QoS, SubscriptionOptions, Version};

use crate::common::{bytes, hex};

pub struct Conversation {
    pub client: Client,
    pub now_ms: u64,
}

/// A client "c" without limits of its own, so that CONNECT is short.
pub fn options(version: Version) -> Options {
    Options {
        version,
        client_id: "c".into(),
        receive_maximum: u16::MAX,
        maximum_packet_size: 268_435_460,
        topic_alias_maximum: 0,
        ..Options::default()
    }
}

impl Conversation {
    pub fn new(options: Options) -> Conversation {
        Conversation {
            client: Client::new(options),
            now_ms: 0,
        }
    }

    /// Connected with a clean start; CONNACK as given.
    pub fn accepted(options: Options, connack: &str) -> Conversation {
        let mut conversation = Conversation::new(options);
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        conversation.receives(connack);
        assert!(matches!(conversation.event(), Event::Connected { .. }));
        conversation
    }

    /// Connected with a clean start to a server without limits.
    pub fn connected(version: Version) -> Conversation {
        let session_expiry = 100;
        let options = Options {
            session_expiry,
            ..options(version)
        };
        Conversation::accepted(options, connack(version, false))
    }

    /// The transport breaks, and the server goes on with the session.
    pub fn reconnects(&mut self) {
        self.client.on_closed();
        self.client.connect(false, self.now_ms).unwrap();
        self.drain();
        self.receives(connack(self.client.options().version, true));
        assert!(matches!(
            self.event(),
            Event::Connected {
                session_present: true,
                ..
            }
        ));
    }

    /// The server's bytes, as [`bytes`] reads them.
    pub fn receives(&mut self, text: &str) {
        self.client.handle_bytes(&bytes(text), self.now_ms);
    }

    /// All that the client has written since the last look.
    #[track_caller]
    pub fn writes(&mut self, expected: &str) {
        assert_eq!(hex(&self.drain()), hex(&bytes(expected)));
    }

    #[track_caller]
    pub fn writes_nothing(&mut self) {
        self.writes("");
    }

    pub fn drain(&mut self) -> Vec<u8> {
        let output = self.client.output().to_vec();
        self.client.on_written(output.len());
        output
    }

    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.client.poll_event().expect("an event")
    }

    #[track_caller]
    pub fn no_event(&mut self) {
        assert_eq!(self.client.poll_event(), None);
    }

    #[track_caller]
    pub fn message(&mut self) -> Message {
        match self.event() {
            Event::Message(message) => message,
            other => panic!("{other:?} is not a message"),
        }
    }

    /// The client gave up with this reason code, which it wrote in 5.0.
    #[track_caller]
    pub fn gave_up(&mut self, code: u8) {
        match self.event() {
            Event::Failed(failure) => assert_eq!(failure.reason.code(), code, "{failure}"),
            other => panic!("{other:?} is not a failure"),
        }
        assert!(self.client.is_closing());
        match self.client.options().version {
            Version::V5 => self.writes(&format!("e0 01 {code:02x}")),
            _ => self.writes_nothing(),
        }
    }

    #[track_caller]
    pub fn publishes(&mut self, qos: QoS) -> Option<PacketId> {
        self.client.publish(&a(qos), self.now_ms).unwrap()
    }

    #[track_caller]
    pub fn subscribes(&mut self, filter: &str, qos: QoS) -> PacketId {
        let options = SubscriptionOptions {
            qos,
            ..Default::default()
        };
        self.client
            .subscribe(&[(filter, options)], Properties::EMPTY, self.now_ms)
            .unwrap()
    }
}

/// CONNACK without properties.
pub fn connack(version: Version, session_present: bool) -> &'static str {
    match (version, session_present) {
        (Version::V5, false) => "20 03 00 00 00",
        (Version::V5, true) => "20 03 01 00 00",
        (Version::V31, _) | (_, false) => "20 02 00 00",
        (_, true) => "20 02 01 00",
    }
}

/// The message "m" to the topic "a".
pub fn a(qos: QoS) -> Publication<'static> {
    Publication {
        topic: "a",
        payload: b"m",
        qos,
        ..Default::default()
    }
}

pub fn will() -> WillMessage {
    WillMessage {
        topic: "w".into(),
        payload: b"gone".to_vec(),
        ..Default::default()
    }
}
