//! Why something succeeded or failed, in the standard's words.

use std::fmt;

macro_rules! reasons {
    ($($name:ident = $code:literal $text:literal)*) => {
        /// A reason code, MQTT 5.0 section 2.4.
        ///
        /// Code 0 has several names in the standard; [`Reason::NormalDisconnection`] and [`Reason::GrantedQoS0`] are
        /// [`Reason::Success`]. Before 5.0 only CONNACK ([`Reason::connect_return_code`]) and SUBACK carry reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $code,)*
        }

        impl Reason {
            /// Every reason, by ascending code.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// The reason of a code, or `None` if the standard gives it no meaning.
            pub const fn from_code(code: u8) -> Option<Reason> {
                match code {
                    $($code => Some(Reason::$name),)*
                    _ => None,
                }
            }

            /// The name in the standard.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    Success = 0x00 "Success"
    GrantedQoS1 = 0x01 "Granted QoS 1"
    GrantedQoS2 = 0x02 "Granted QoS 2"
    DisconnectWithWill = 0x04 "Disconnect with Will Message"
    NoMatchingSubscribers = 0x10 "No matching subscribers"
    NoSubscriptionExisted = 0x11 "No subscription existed"
    ContinueAuthentication = 0x18 "Continue authentication"
    ReAuthenticate = 0x19 "Re-authenticate"
    UnspecifiedError = 0x80 "Unspecified error"
    MalformedPacket = 0x81 "Malformed Packet"
    ProtocolError = 0x82 "Protocol Error"
    ImplementationSpecificError = 0x83 "Implementation specific error"
    UnsupportedProtocolVersion = 0x84 "Unsupported Protocol Version"
    ClientIdentifierNotValid = 0x85 "Client Identifier not valid"
    BadUserNameOrPassword = 0x86 "Bad User Name or Password"
    NotAuthorized = 0x87 "Not authorized"
    ServerUnavailable = 0x88 "Server unavailable"
    ServerBusy = 0x89 "Server busy"
    Banned = 0x8A "Banned"
    ServerShuttingDown = 0x8B "Server shutting down"
    BadAuthenticationMethod = 0x8C "Bad authentication method"
    KeepAliveTimeout = 0x8D "Keep Alive timeout"
    SessionTakenOver = 0x8E "Session taken over"
    TopicFilterInvalid = 0x8F "Topic Filter invalid"
    TopicNameInvalid = 0x90 "Topic Name invalid"
    PacketIdentifierInUse = 0x91 "Packet Identifier in use"
    PacketIdentifierNotFound = 0x92 "Packet Identifier not found"
    ReceiveMaximumExceeded = 0x93 "Receive Maximum exceeded"
    TopicAliasInvalid = 0x94 "Topic Alias invalid"
    PacketTooLarge = 0x95 "Packet too large"
    MessageRateTooHigh = 0x96 "Message rate too high"
    QuotaExceeded = 0x97 "Quota exceeded"
    AdministrativeAction = 0x98 "Administrative action"
    PayloadFormatInvalid = 0x99 "Payload format invalid"
    RetainNotSupported = 0x9A "Retain not supported"
    QoSNotSupported = 0x9B "QoS not supported"
    UseAnotherServer = 0x9C "Use another server"
    ServerMoved = 0x9D "Server moved"
    SharedSubscriptionsNotSupported = 0x9E "Shared Subscriptions not supported"
    ConnectionRateExceeded = 0x9F "Connection rate exceeded"
    MaximumConnectTime = 0xA0 "Maximum connect time"
    SubscriptionIdentifiersNotSupported = 0xA1 "Subscription Identifiers not supported"
    WildcardSubscriptionsNotSupported = 0xA2 "Wildcard Subscriptions not supported"
}

#[allow(non_upper_case_globals)] // Read like the variants that they stand for.
impl Reason {
    /// Code 0 in a DISCONNECT.
    pub const NormalDisconnection: Reason = Reason::Success;
    /// Code 0 in a SUBACK.
    pub const GrantedQoS0: Reason = Reason::Success;
}

impl Reason {
    /// The byte on the wire in 5.0.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether the operation failed: 0x80 and above.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The nearest CONNACK return code of 3.1 and 3.1.1, 0..=5. MQTT 3.1.1 section 3.2.2.3.
    ///
    /// What may be gone at the next attempt becomes 3 (server unavailable), what stays wrong becomes 5 (not authorized).
    pub const fn connect_return_code(self) -> u8 {
        use Reason::*;
        match self {
            _ if !self.is_error() => 0,
            UnsupportedProtocolVersion => 1,
            ClientIdentifierNotValid => 2,
            BadUserNameOrPassword => 4,
            NotAuthorized
            | Banned
            | BadAuthenticationMethod
            | MalformedPacket
            | ProtocolError
            | TopicNameInvalid
            | PacketTooLarge
            | PayloadFormatInvalid
            | RetainNotSupported
            | QoSNotSupported => 5,
            _ => 3,
        }
    }

    /// The reason of a CONNACK return code of 3.1 and 3.1.1; `None` above 5, which are reserved.
    pub const fn from_connect_return_code(code: u8) -> Option<Reason> {
        match code {
            0 => Some(Reason::Success),
            1 => Some(Reason::UnsupportedProtocolVersion),
            2 => Some(Reason::ClientIdentifierNotValid),
            3 => Some(Reason::ServerUnavailable),
            4 => Some(Reason::BadUserNameOrPassword),
            5 => Some(Reason::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_unique_and_read_back() {
        for code in 0..=255 {
            let reason = Reason::from_code(code);
            assert_eq!(reason.map(Reason::code), reason.map(|_| code));
            assert_eq!(reason.map(Reason::is_error), reason.map(|_| code >= 0x80));
        }
        assert_eq!(
            Reason::ALL.len(),
            (0..=255).filter_map(Reason::from_code).count()
        );
        assert_eq!(Reason::ALL.len(), 43);
    }

    #[test]
    fn names_are_those_of_the_standard() {
        assert_eq!(Reason::PacketTooLarge.to_string(), "Packet too large");
        assert_eq!(Reason::NormalDisconnection, Reason::Success);
    }

    #[test]
    fn return_codes_before_v5_read_back() {
        for code in 0..=5 {
            let reason = Reason::from_connect_return_code(code).expect("0..=5 have meanings");
            assert_eq!(reason.connect_return_code(), code);
        }
        assert_eq!(Reason::from_connect_return_code(6), None);
        assert!(
            Reason::ALL
                .iter()
                .all(|reason| reason.connect_return_code() <= 5)
        );
        assert!(
            Reason::ALL
                .iter()
                .all(|reason| (reason.connect_return_code() == 0) != reason.is_error())
        );
    }
}
