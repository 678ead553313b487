//! A property block in its wire form, borrowed and owned. MQTT 5.0 section 2.2.2.

use std::fmt;

use crate::property::{self, Kind, id, kind};
use crate::{Property, decode, wire};

/// A checked property block: the bytes after the property length.
///
/// Single properties have a getter each; see [`Property`] for what they mean. Two blocks are equal if they hold the
/// same properties in the same order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties, and all there are before 5.0.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Takes a block that this process wrote or checked before, such as from storage.
    ///
    /// What cannot be read ends the iteration; debug builds panic.
    pub fn trusted(bytes: &'a [u8]) -> Properties<'a> {
        debug_assert_eq!(decode::check_properties(bytes), Ok(()));
        Properties(bytes)
    }

    /// Wraps what the decoder has just checked.
    pub(crate) const fn checked(bytes: &'a [u8]) -> Properties<'a> {
        Properties(bytes)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The wire form, without the property length.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// All properties in their order.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        self.raw()
            .map_while(|raw| Property::read(raw.id, raw.value))
    }

    /// Subscription identifiers, in their order.
    pub fn subscription_ids(self) -> impl Iterator<Item = u32> + use<'a> {
        self.all(id::SubscriptionId)
            .filter_map(property::value::Variable::read)
    }

    /// User properties, in their order.
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all(id::UserProperty)
            .filter_map(property::value::Pair::read)
    }

    /// Appends, in their order, the properties of a PUBLISH or a will that go on to every subscriber unchanged: payload format, content type,
    /// response topic, correlation data and user properties.
    ///
    /// Message expiry counts down, topic aliases and subscription identifiers belong to one connection, and
    /// the will delay has been waited for; those stay behind.
    pub fn write_forwardable(self, out: &mut Vec<u8>) {
        for raw in self.raw() {
            if !matches!(
                raw.id,
                id::MessageExpiry | id::TopicAlias | id::SubscriptionId | id::WillDelay
            ) {
                out.extend_from_slice(raw.whole);
            }
        }
    }

    /// The raw value of the first property with this identifier.
    pub(crate) fn find(self, id: u8) -> Option<&'a [u8]> {
        self.all(id).next()
    }

    fn all(self, id: u8) -> impl Iterator<Item = &'a [u8]> {
        self.raw()
            .filter(move |raw| raw.id == id)
            .map(|raw| raw.value)
    }

    fn raw(self) -> RawProperties<'a> {
        RawProperties { rest: self.0 }
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A property whose value has not been interpreted.
struct RawProperty<'a> {
    id: u8,
    /// Without the length of a text or binary value.
    value: &'a [u8],
    /// With identifier and length.
    whole: &'a [u8],
}

/// Walks over a checked block.
struct RawProperties<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RawProperties<'a> {
    type Item = RawProperty<'a>;

    fn next(&mut self) -> Option<RawProperty<'a>> {
        let (&id, after_id) = self.rest.split_first()?;
        // The number of bytes before the value, and of the value.
        let (skip, len) = match kind(id)? {
            Kind::Flag | Kind::MaximumQoS => (0, 1),
            Kind::Short => (0, 2),
            Kind::Long => (0, 4),
            Kind::Variable => (0, wire::read_variable(after_id)?.1),
            Kind::Text | Kind::Binary => (2, wire::split_bytes(after_id)?.0.len()),
            Kind::Pair => {
                let (name, rest) = wire::split_bytes(after_id)?;
                let (value, _) = wire::split_bytes(rest)?;
                (0, 4 + name.len() + value.len())
            }
        };
        let (whole, rest) = self.rest.split_at_checked(1 + skip + len)?;
        self.rest = rest;
        Some(RawProperty {
            id,
            value: &whole[1 + skip..],
            whole,
        })
    }
}

/// A property block under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// An empty block.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf(Vec::new())
    }

    /// Appends a property. That it fits the packet, keeps its value's rules and is there once is up to the caller.
    ///
    /// Panics if a text or binary value is longer than 65535 bytes.
    pub fn push(&mut self, property: Property<'_>) {
        property.write(&mut self.0);
    }

    /// Removes all properties and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The block.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties::trusted(&self.0)
    }

    /// The wire form, without the property length.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Extend<Property<'a>> for PropertiesBuf {
    fn extend<I: IntoIterator<Item = Property<'a>>>(&mut self, properties: I) {
        for property in properties {
            self.push(property);
        }
    }
}

impl<'a> FromIterator<Property<'a>> for PropertiesBuf {
    fn from_iter<I: IntoIterator<Item = Property<'a>>>(properties: I) -> PropertiesBuf {
        let mut buf = PropertiesBuf::new();
        buf.extend(properties);
        buf
    }
}
