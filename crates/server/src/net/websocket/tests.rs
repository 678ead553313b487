use proptest::prelude::*;

use super::{upgrade::accept_key, *};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const FIN: u8 = 0x80;

fn codec() -> WebSocket {
    WebSocket::new("/mqtt".into())
}

fn open() -> WebSocket {
    let mut socket = codec();
    socket
        .decode(REQUEST.as_bytes(), &mut Vec::new(), &mut Vec::new())
        .unwrap();
    assert!(socket.is_open());
    socket
}

/// A masked frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        middle @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// Feeds an open codec; gives data, replies and the end, if any.
fn run(input: &[u8]) -> (Vec<u8>, Vec<u8>, Option<Fault>) {
    let (mut data, mut replies) = (Vec::new(), Vec::new());
    let fault = open().decode(input, &mut data, &mut replies).err();
    (data, replies, fault)
}

fn check_refused(request: &str, expected: u16) {
    let mut replies = Vec::new();
    let fault = codec().decode(request.as_bytes(), &mut Vec::new(), &mut replies);
    let Err(Fault::Refused { status, .. }) = fault else {
        panic!("{request:?} gave {fault:?}");
    };
    assert_eq!(status, expected, "{request:?}");
    let text = String::from_utf8(replies).unwrap();
    assert!(text.starts_with(&format!("HTTP/1.1 {expected} ")), "{text}");
    assert!(text.contains("Connection: "), "{text}");
}

#[test]
fn key_of_the_rfc_gives_the_answer_of_the_rfc() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test] // [MQTT-6.0.0-4]
fn upgrade_names_the_subprotocol_mqtt() {
    let mut replies = Vec::new();
    let mut socket = codec();
    socket
        .decode(REQUEST.as_bytes(), &mut Vec::new(), &mut replies)
        .unwrap();
    let text = String::from_utf8(replies).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{text}"
    );
    assert!(
        text.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"),
        "{text}"
    );
    assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(text.ends_with("\r\n\r\n"));
}

#[test]
fn upgrade_may_come_byte_by_byte_with_a_frame_behind_it() {
    let mut socket = codec();
    let (mut data, mut replies) = (Vec::new(), Vec::new());
    let mut input = REQUEST.as_bytes().to_vec();
    input.extend(frame(FIN | 2, b"hello"));
    for byte in input {
        socket.decode(&[byte], &mut data, &mut replies).unwrap();
    }
    assert_eq!(data, b"hello");
}

#[test]
fn mqttv3_1_and_the_root_path_and_a_query_are_accepted() {
    for request in [
        REQUEST.replace("Protocol: mqtt", "Protocol: chat, mqttv3.1"),
        REQUEST.replace("GET /mqtt ", "GET / "),
        REQUEST.replace("GET /mqtt ", "GET /mqtt?token=1 "),
    ] {
        let mut replies = Vec::new();
        codec()
            .decode(request.as_bytes(), &mut Vec::new(), &mut replies)
            .unwrap_or_else(|fault| panic!("{request:?}: {fault}"));
        assert!(replies.starts_with(b"HTTP/1.1 101"));
    }
}

#[test]
fn wrong_requests_get_clear_answers() {
    check_refused("hello\r\n\r\n", 400);
    check_refused(&REQUEST.replace("GET ", "POST "), 400);
    check_refused(&REQUEST.replace("GET /mqtt ", "GET /other "), 404);
    check_refused("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n", 426);
    check_refused(&REQUEST.replace("Version: 13", "Version: 8"), 426);
    check_refused(&REQUEST.replace("Protocol: mqtt", "Protocol: chat"), 400);
    check_refused(&REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400);
    check_refused(&REQUEST.replace("keep-alive, Upgrade", "close"), 400);
    check_refused(&REQUEST.replace("localhost", &"x".repeat(9000)), 431);
}

#[test] // [MQTT-6.0.0-2]
fn packets_may_span_frames_and_share_them() {
    let mut input = frame(2, b"ab");
    input.extend(frame(FIN | 9, b"ping"));
    input.extend(frame(0, b"cd"));
    input.extend(frame(FIN, b"ef"));
    input.extend(frame(FIN | 2, b"gh"));
    let (data, replies, fault) = run(&input);
    assert_eq!(data, b"abcdefgh");
    assert_eq!(replies, b"\x8A\x04ping");
    assert_eq!(fault, None);
}

#[test] // [MQTT-6.0.0-1]
fn text_frame_closes_with_1003() {
    let (data, replies, fault) = run(&frame(FIN | 1, b"hello"));
    assert!(data.is_empty());
    assert_eq!(replies, [0x88, 2, 0x03, 0xEB]);
    assert!(matches!(fault, Some(Fault::Protocol(_))));
}

#[test]
fn broken_frames_close_with_1002() {
    let unmasked = vec![FIN | 2, 0];
    let mut fragmented = frame(2, b"a");
    fragmented.extend(frame(FIN | 2, b"b"));
    for input in [
        unmasked,
        fragmented,
        frame(FIN | 0x40 | 2, b"a"),
        frame(FIN, b"a"),
        frame(9, b"a"),
        frame(FIN | 9, &[0; 126]),
        frame(FIN | 3, b""),
    ] {
        let (_, replies, fault) = run(&input);
        assert_eq!(replies, [0x88, 2, 0x03, 0xEA], "{input:02x?}");
        assert!(matches!(fault, Some(Fault::Protocol(_))));
    }
}

#[test]
fn frame_beyond_all_bounds_closes_with_1009() {
    let mut input = vec![FIN | 2, 0x80 | 127];
    input.extend((1u64 << 40).to_be_bytes());
    input.extend([0; 4]);
    let (_, replies, fault) = run(&input);
    assert_eq!(replies, [0x88, 2, 0x03, 0xF1]);
    assert!(matches!(fault, Some(Fault::Protocol(_))));
}

#[test]
fn close_is_answered_with_its_code_and_ends_the_input() {
    let mut input = frame(FIN | 8, &[0x03, 0xE8, b'b', b'y', b'e']);
    input.extend(frame(FIN | 2, b"late"));
    let (data, replies, fault) = run(&input);
    assert!(data.is_empty());
    assert_eq!(replies, [0x88, 2, 0x03, 0xE8]);
    assert_eq!(fault, Some(Fault::Closed));
}

#[test]
fn headers_of_the_server_have_the_shortest_form() {
    let check = |bytes: usize, expected: &[u8]| {
        let (header, length) = binary_header(bytes);
        assert_eq!(&header[..length], expected);
    };
    check(0, &[0x82, 0]);
    check(125, &[0x82, 125]);
    check(126, &[0x82, 126, 0, 126]);
    check(65_535, &[0x82, 126, 0xFF, 0xFF]);
    check(65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn idle_codec_is_small() {
    assert!(size_of::<WebSocket>() <= 72, "{}", size_of::<WebSocket>());
}

proptest! {
    #[test]
    fn any_split_gives_the_same_data(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
        cuts in prop::collection::vec(1usize..50, 1..200),
    ) {
        let input: Vec<u8> = payloads.iter().flat_map(|payload| frame(FIN | 2, payload)).collect();
        let mut socket = open();
        let (mut data, mut replies) = (Vec::new(), Vec::new());
        let mut rest = input.as_slice();
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            socket.decode(now, &mut data, &mut replies).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(data, payloads.concat());
        prop_assert!(replies.is_empty());
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (mut data, mut replies) = (Vec::new(), Vec::new());
        let _ = open().decode(&input, &mut data, &mut replies);
        let _ = codec().decode(&input, &mut data, &mut replies);
        prop_assert!(data.len() <= 2 * input.len());
    }
}
