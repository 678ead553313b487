//! The table of properties, MQTT 5.0 section 2.2.2.2: identifiers, names and wire types.

use crate::{Properties, QoS};

/// How a property's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One byte, 0 or 1.
    Flag,
    /// One byte, 0 or 1, as a quality of service.
    MaximumQoS,
    /// Two bytes.
    Short,
    /// Four bytes.
    Long,
    /// A variable byte integer.
    Variable,
    /// UTF-8 with two bytes of length.
    Text,
    /// Bytes with two bytes of length.
    Binary,
    /// Two texts.
    Pair,
}

macro_rules! properties {
    (
        single { $($(#[$doc:meta])* $id:literal $name:ident($type:ty) $kind:ident $getter:ident)* }
        repeated { $($(#[$rdoc:meta])* $rid:literal $rname:ident($rtype:ty) $rkind:ident)* }
    ) => {
        /// One property, MQTT 5.0 section 2.2.2.2.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Property<'a> {
            $($(#[$doc])* $name($type),)*
            $($(#[$rdoc])* $rname($rtype),)*
        }

        impl<'a> Property<'a> {
            /// The identifier on the wire.
            pub const fn id(self) -> u8 {
                match self {
                    $(Property::$name(_) => $id,)*
                    $(Property::$rname(_) => $rid,)*
                }
            }

            /// Appends identifier and value in wire form.
            ///
            /// Panics if a text or binary value is longer than 65535 bytes.
            pub fn write(self, out: &mut Vec<u8>) {
                out.push(self.id());
                match self {
                    $(Property::$name(value) => value::$kind::write(value, out),)*
                    $(Property::$rname(value) => value::$rkind::write(value, out),)*
                }
            }

            /// Reads the raw value that [`crate::properties::RawProperties`] found.
            pub(crate) fn read(id: u8, raw: &'a [u8]) -> Option<Property<'a>> {
                Some(match id {
                    $($id => Property::$name(value::$kind::read(raw)?),)*
                    $($rid => Property::$rname(value::$rkind::read(raw)?),)*
                    _ => return None,
                })
            }
        }

        /// Getters scan from the start; a block seldom holds more than three properties.
        impl<'a> Properties<'a> {
            $($(#[$doc])*
            pub fn $getter(self) -> Option<$type> {
                self.find($id).and_then(value::$kind::read)
            })*
        }

        /// The wire type of an identifier.
        pub(crate) const fn kind(id: u8) -> Option<Kind> {
            match id {
                $($id => Some(Kind::$kind),)*
                $($rid => Some(Kind::$rkind),)*
                _ => None,
            }
        }

        /// The identifiers by name.
        #[allow(non_upper_case_globals, dead_code)]
        pub(crate) mod id {
            $(pub(crate) const $name: u8 = $id;)*
            $(pub(crate) const $rname: u8 = $rid;)*
        }
    };
}

properties! {
    single {
        /// Payload Format Indicator: true if the payload is UTF-8 text. PUBLISH, Will.
        0x01 PayloadFormat(bool) Flag payload_format
        /// Message Expiry Interval, seconds. PUBLISH, Will.
        0x02 MessageExpiry(u32) Long message_expiry
        /// Content Type of the payload. PUBLISH, Will.
        0x03 ContentType(&'a str) Text content_type
        /// Response Topic, a valid topic name. PUBLISH, Will.
        0x08 ResponseTopic(&'a str) Text response_topic
        /// Correlation Data. PUBLISH, Will.
        0x09 CorrelationData(&'a [u8]) Binary correlation_data
        /// Session Expiry Interval, seconds; `u32::MAX` never. CONNECT, CONNACK, DISCONNECT.
        0x11 SessionExpiry(u32) Long session_expiry
        /// Assigned Client Identifier. CONNACK.
        0x12 AssignedClientId(&'a str) Text assigned_client_id
        /// Server Keep Alive, seconds. CONNACK.
        0x13 ServerKeepAlive(u16) Short server_keep_alive
        /// Authentication Method. CONNECT, CONNACK, AUTH.
        0x15 AuthMethod(&'a str) Text auth_method
        /// Authentication Data. CONNECT, CONNACK, AUTH.
        0x16 AuthData(&'a [u8]) Binary auth_data
        /// Request Problem Information; absent means true. CONNECT.
        0x17 RequestProblemInformation(bool) Flag request_problem_information
        /// Will Delay Interval, seconds. Will.
        0x18 WillDelay(u32) Long will_delay
        /// Request Response Information; absent means false. CONNECT.
        0x19 RequestResponseInformation(bool) Flag request_response_information
        /// Response Information. CONNACK.
        0x1A ResponseInformation(&'a str) Text response_information
        /// Server Reference: where to go instead. CONNACK, DISCONNECT.
        0x1C ServerReference(&'a str) Text server_reference
        /// Reason String, for people. All acknowledgements, DISCONNECT, AUTH.
        0x1F ReasonString(&'a str) Text reason_string
        /// Receive Maximum, 1..=65535; absent means 65535. CONNECT, CONNACK.
        0x21 ReceiveMaximum(u16) Short receive_maximum
        /// Topic Alias Maximum; absent means 0. CONNECT, CONNACK.
        0x22 TopicAliasMaximum(u16) Short topic_alias_maximum
        /// Topic Alias, 1..=65535. PUBLISH.
        0x23 TopicAlias(u16) Short topic_alias
        /// Maximum QoS, 0 or 1; absent means 2. CONNACK.
        0x24 MaximumQoS(QoS) MaximumQoS maximum_qos
        /// Retain Available; absent means true. CONNACK.
        0x25 RetainAvailable(bool) Flag retain_available
        /// Maximum Packet Size, bytes, not 0; absent means no limit. CONNECT, CONNACK.
        0x27 MaximumPacketSize(u32) Long maximum_packet_size
        /// Wildcard Subscription Available; absent means true. CONNACK.
        0x28 WildcardSubscriptionAvailable(bool) Flag wildcard_subscription_available
        /// Subscription Identifiers Available; absent means true. CONNACK.
        0x29 SubscriptionIdsAvailable(bool) Flag subscription_ids_available
        /// Shared Subscription Available; absent means true. CONNACK.
        0x2A SharedSubscriptionAvailable(bool) Flag shared_subscription_available
    }
    repeated {
        /// Subscription Identifier, 1..=268435455. SUBSCRIBE (one), PUBLISH (any number).
        0x0B SubscriptionId(u32) Variable
        /// User Property: name and value. Everywhere, any number.
        0x26 UserProperty((&'a str, &'a str)) Pair
    }
}

/// Reading and writing of values, one module per [`Kind`]. Text and binary are read without their length.
#[allow(non_snake_case)] // Named as the kinds, for the table.
pub(crate) mod value {
    pub(crate) mod Flag {
        pub(crate) fn read(raw: &[u8]) -> Option<bool> {
            raw.first().map(|&byte| byte != 0)
        }
        pub(crate) fn write(value: bool, out: &mut Vec<u8>) {
            out.push(value.into());
        }
    }

    pub(crate) mod MaximumQoS {
        use crate::QoS;
        pub(crate) fn read(raw: &[u8]) -> Option<QoS> {
            raw.first().and_then(|&byte| QoS::from_bits(byte))
        }
        pub(crate) fn write(value: QoS, out: &mut Vec<u8>) {
            out.push(value as u8);
        }
    }

    pub(crate) mod Short {
        pub(crate) fn read(raw: &[u8]) -> Option<u16> {
            raw.try_into().ok().map(u16::from_be_bytes)
        }
        pub(crate) fn write(value: u16, out: &mut Vec<u8>) {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(crate) mod Long {
        pub(crate) fn read(raw: &[u8]) -> Option<u32> {
            raw.try_into().ok().map(u32::from_be_bytes)
        }
        pub(crate) fn write(value: u32, out: &mut Vec<u8>) {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(crate) mod Variable {
        use crate::wire;
        pub(crate) fn read(raw: &[u8]) -> Option<u32> {
            wire::read_variable(raw).map(|(value, _)| value)
        }
        pub(crate) fn write(value: u32, out: &mut Vec<u8>) {
            wire::write_variable(value, out);
        }
    }

    pub(crate) mod Text {
        use crate::wire;
        pub(crate) fn read(raw: &[u8]) -> Option<&str> {
            std::str::from_utf8(raw).ok()
        }
        pub(crate) fn write(value: &str, out: &mut Vec<u8>) {
            wire::write_bytes(value.as_bytes(), out);
        }
    }

    pub(crate) mod Binary {
        use crate::wire;
        pub(crate) fn read(raw: &[u8]) -> Option<&[u8]> {
            Some(raw)
        }
        pub(crate) fn write(value: &[u8], out: &mut Vec<u8>) {
            wire::write_bytes(value, out);
        }
    }

    pub(crate) mod Pair {
        use crate::wire;
        pub(crate) fn read(raw: &[u8]) -> Option<(&str, &str)> {
            let (name, rest) = wire::split_bytes(raw)?;
            let (value, _) = wire::split_bytes(rest)?;
            Some((
                std::str::from_utf8(name).ok()?,
                std::str::from_utf8(value).ok()?,
            ))
        }
        pub(crate) fn write((name, value): (&str, &str), out: &mut Vec<u8>) {
            wire::write_bytes(name.as_bytes(), out);
            wire::write_bytes(value.as_bytes(), out);
        }
    }
}
