//! A broker with a script, for tests of what talks to one; and tests of the connection itself.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use campanile_mqtt::client::Publication;
use campanile_mqtt::{Auth, ConnAck, Packet, Properties, Property, Version};

use super::*;
use crate::cli::scram_client::METHOD;

/// What the broker does next.
pub enum Step {
    /// Reads packets until they begin with these bytes, in hexadecimal. Packets of equal number as in the text are awaited.
    Reads(&'static str),
    /// Reads a packet that has this text in it.
    ReadsText(&'static str),
    /// Writes these bytes: hexadecimal, or text in quotes.
    Writes(&'static str),
    /// Closes the connection and accepts the next.
    Closes,
    /// Writes the challenge of SCRAM to the nonce that was read last.
    ScramChallenge,
    /// Writes CONNACK with the proof that belongs to a password.
    ScramOutcome(&'static str),
}

pub struct Broker {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

impl Broker {
    pub fn start<const N: usize>(script: [Step; N]) -> Broker {
        Broker::start_with(script, |stream| Box::new(stream))
    }

    fn start_with<const N: usize>(
        script: [Step; N],
        wrap: impl Fn(TcpStream) -> Box<dyn Wire> + Send + 'static,
    ) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || play(&listener, script.into(), wrap));
        Broker { address, thread }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Fails if the script did.
    pub fn join(self) {
        self.thread.join().unwrap();
    }
}

fn play(listener: &TcpListener, script: Vec<Step>, wrap: impl Fn(TcpStream) -> Box<dyn Wire>) {
    let accept = || {
        let stream = listener.accept().unwrap().0;
        // Only a test that fails waits for so long.
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        wrap(stream)
    };
    let mut stream = accept();
    let mut last = Vec::new();
    let mut scram = String::new();
    for step in script {
        match step {
            Step::Reads(text) => {
                let expected = bytes(text);
                last.clear();
                while last.len() < expected.len() {
                    last.extend(read_packet(&mut stream));
                }
                let shown = &last[..last.len().min(64)];
                assert!(
                    last.starts_with(&expected),
                    "{expected:02x?} awaited, {shown:02x?} read"
                );
            }
            Step::ReadsText(text) => {
                last = read_packet(&mut stream);
                let read = String::from_utf8_lossy(&last);
                assert!(read.contains(text), "{read:?} does not say {text:?}");
            }
            Step::Writes(text) => write(&mut stream, &bytes(text)),
            Step::Closes => {
                drop(stream);
                stream = accept();
            }
            Step::ScramChallenge => {
                let first = auth_data(&last);
                let bare = first.strip_prefix("n,,").unwrap();
                let nonce = bare.split("r=").nth(1).unwrap();
                let challenge = format!("r={nonce}more,s={},i=4096", BASE64.encode("salt"));
                scram = format!("{bare},{challenge}");
                let properties = scram_properties(&challenge);
                let auth = Auth {
                    reason: Reason::ContinueAuthentication,
                    properties: properties.as_properties(),
                };
                write_packet(&mut stream, &Packet::Auth(auth));
            }
            Step::ScramOutcome(password) => {
                let (without_proof, _) = split_proof(&auth_data(&last));
                let outcome = format!(
                    "v={}",
                    server_proof(&format!("{scram},{without_proof}"), password)
                );
                let properties = scram_properties(&outcome);
                let connack = ConnAck {
                    session_present: false,
                    reason: Reason::Success,
                    properties: properties.as_properties(),
                };
                write_packet(&mut stream, &Packet::ConnAck(connack));
            }
        }
    }
}

fn split_proof(message: &str) -> (String, String) {
    let (rest, proof) = message.rsplit_once(",p=").unwrap();
    (rest.to_owned(), proof.to_owned())
}

fn server_proof(signed: &str, password: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let hmac = |key: &[u8], message: &[u8]| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes()
    };
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.as_bytes(), b"salt", 4096, &mut salted);
    BASE64.encode(hmac(&hmac(&salted, b"Server Key"), signed.as_bytes()))
}

fn scram_properties(data: &str) -> PropertiesBuf {
    [
        Property::AuthMethod(METHOD),
        Property::AuthData(data.as_bytes()),
    ]
    .into_iter()
    .collect()
}

fn auth_data(packet: &[u8]) -> String {
    let properties = match Packet::decode(packet, Version::V5).unwrap() {
        Packet::Connect(connect) => connect.properties,
        Packet::Auth(auth) => auth.properties,
        other => panic!("{other:?} has no authentication"),
    };
    String::from_utf8(properties.auth_data().unwrap().to_vec()).unwrap()
}

fn write_packet(stream: &mut impl Write, packet: &Packet<'_>) {
    let mut out = Vec::new();
    packet.encode(Version::V5, &mut out);
    write(stream, &out);
}

fn write(stream: &mut impl Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.flush().unwrap();
}

fn read_packet(stream: &mut impl Read) -> Vec<u8> {
    let mut packet = Vec::new();
    loop {
        match split(&packet, u32::MAX).unwrap() {
            Split::Packet { .. } => return packet,
            Split::NeedMore { at_least } => {
                let read = packet.len();
                packet.resize(at_least, 0);
                stream.read_exact(&mut packet[read..]).unwrap();
            }
        }
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let words = text.split_whitespace();
    words
        .flat_map(|word| match word.strip_prefix('\'') {
            Some(quoted) => quoted.trim_end_matches('\'').as_bytes().to_vec(),
            None => vec![u8::from_str_radix(word, 16).unwrap()],
        })
        .collect()
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    connect: ConnectArgs,
}

fn arguments(url: &str, more: &[&str]) -> ConnectArgs {
    let all = ["test", "--url", url]
        .into_iter()
        .chain(more.iter().copied());
    <Cli as clap::Parser>::try_parse_from(all).unwrap().connect
}

#[test]
fn connect_carries_user_password_and_will() {
    let broker = Broker::start([
        Reads(
            "10 22 00 04 4d 51 54 54 04 ce 00 05 00 01 63 00 01 77 00 03 62 79 65 00 03 61 6e 6e",
        ),
        Step::Writes("20 02 00 00"),
        Reads("e0 00"),
    ]);
    let more = [
        "-V",
        "3.1.1",
        "-i",
        "c",
        "-k",
        "5",
        "-u",
        "ann",
        "-P",
        "secret",
        "--will-topic",
        "w",
        "--will-message",
        "bye",
        "--will-qos",
        "1",
    ];
    let args = arguments(&broker.url(), &more);
    assert!(!format!("{args:?}").contains("secret"));
    let (connection, session_present) = Connection::open(&args, true, |_| {}).unwrap();
    assert!(!session_present);
    connection.close(Properties::EMPTY);
    broker.join();
}

use Step::Reads;

#[test]
fn broker_that_accepts_nobody_is_an_error_with_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let args = arguments(&format!("mqtt://{address}"), &[]);
    let error = Connection::open(&args, true, |_| {}).err().unwrap();
    let text = format!("{error:#}");
    assert!(text.contains(&address.to_string()), "{text}");
}

#[test]
fn broker_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let args = arguments(
        &format!("mqtt://{}", listener.local_addr().unwrap()),
        &["--timeout", "1"],
    );
    let error = Connection::open(&args, true, |_| {}).err().unwrap();
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[test]
fn tls_connects_to_whom_the_authority_has_signed_alone() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, signed.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key =
        rustls_pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream: TcpStream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        Box::new(rustls::StreamOwned::new(session, stream)) as Box<dyn Wire>
    };
    let payload = vec![b'x'; 300_000];
    let broker = Broker::start_with(
        [
            Reads("10"),
            Step::Writes("20 03 00 00 00"),
            Reads("30 e4 a7 12"),
            Step::Writes("30 05 00 01 61 00 79"),
            Reads("e0 00"),
        ],
        wrap,
    );
    let url = format!("mqtts://localhost:{}", broker.address.port());
    let args = arguments(&url, &["--ca", ca.to_str().unwrap()]);
    let (mut connection, _) = Connection::open(&args, true, |_| {}).unwrap();
    let publication = Publication {
        topic: "a",
        payload: &payload,
        ..Default::default()
    };
    connection.client.publish(&publication, 0).unwrap();
    let message = loop {
        if let Some(event) = connection.poll_event() {
            break event;
        }
        connection.turn(None).unwrap();
    };
    assert!(matches!(message, Event::Message(_)));
    connection.close(Properties::EMPTY);
    broker.join();
}

#[test]
fn properties_of_a_refusal_are_told() {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::ReasonString("full"));
    assert_eq!(
        describe(Reason::QuotaExceeded, &properties),
        "Quota exceeded (0x97): full"
    );
}
