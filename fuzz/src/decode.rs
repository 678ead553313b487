//! The decoder of MQTT packets.

use campanile_mqtt::{Packet, Split, Version, split};

/// Bytes are refused, or they are a packet that is written as something that reads the same and is not longer.
///
/// The first byte chooses the version, the rest is the packet.
pub fn check(input: &[u8]) {
    let Some((&version, bytes)) = input.split_first() else {
        return;
    };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version % 3)];
    if let Ok(Split::Packet {
        total_len,
        header_len,
        first_byte,
    }) = split(bytes, u32::MAX)
    {
        assert!(header_len <= total_len && total_len <= bytes.len());
        assert_eq!(first_byte, bytes[0]);
        read(&bytes[..total_len], version);
    }
    read(bytes, version);
}

fn read(frame: &[u8], version: Version) {
    let packet = match Packet::decode(frame, version) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(error.reason.is_error());
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    visit(&packet);
    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert_eq!(Packet::decode(&again, version).as_ref(), Ok(&packet));
    assert!(again.len() <= frame.len(), "not the shortest form");
}

/// Walks over what is only read on demand.
fn visit(packet: &Packet<'_>) {
    match packet {
        Packet::Subscribe(subscribe) => assert_ne!(subscribe.filters.iter().count(), 0),
        Packet::Unsubscribe(unsubscribe) => assert_ne!(unsubscribe.filters.iter().count(), 0),
        Packet::Publish(publish) => {
            let mut forwarded = Vec::new();
            publish.properties.write_forwardable(&mut forwarded);
            assert!(forwarded.len() <= publish.properties.as_bytes().len());
            assert_eq!(
                publish.properties.iter().count() == 0,
                publish.properties.is_empty()
            );
        }
        _ => {}
    }
}
