//! Drivers on real sockets, around a machine that speaks lines: `echo` and a few commands.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use campanile_broker::{
    access::{AuthRequest, Verdict},
    effects::{Origin, Ticket},
    mail::Mail,
    stats::Stats,
    store::{Command, Outcome, Page, Query, StoreError},
};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::net::{
    listener::ListenerSpec,
    tls::{ClientAuth, TlsSpec},
};

/// Echoes lines, with the shard's number before them.
struct Lines {
    id: ShardId,
    known: HashMap<ConnId, Origin>,
    held: Vec<ConnId>,
    effects: Effects,
    outbox: Outbox,
    events: mpsc::Sender<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Accepted,
    Closed,
    Blocked,
    Writable,
    Paused,
    Noted,
}

impl Lines {
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) {
        self.outbox.write(conn, |out| out.extend_from_slice(bytes));
    }
}

impl Machine for Lines {
    fn on_accept(&mut self, conn: ConnId, origin: &Origin, _: Millis) {
        let known = self.known.insert(conn, origin.clone());
        assert!(known.is_none(), "a connection is accepted once");
        self.tell(Event::Accepted);
    }

    fn on_bytes(&mut self, conn: ConnId, input: &[u8], _: Millis) -> Progress {
        assert!(
            self.known.contains_key(&conn),
            "bytes of a connection that was closed or moved"
        );
        let mut progress = Progress {
            consumed: 0,
            paused: false,
            gone: false,
            flush: false,
        };
        while let Some(end) = input[progress.consumed..].iter().position(|b| *b == b'\n') {
            let line = &input[progress.consumed..=progress.consumed + end];
            let text = String::from_utf8_lossy(line);
            let words: Vec<&str> = text.split_whitespace().collect();
            match words[..] {
                ["move", shard] if shard.parse() != Ok(self.id.0) => {
                    let shard = ShardId(shard.parse().unwrap());
                    self.effects.handovers.push((conn, shard));
                    self.known.remove(&conn);
                    progress.gone = true;
                    return progress;
                }
                ["move", _] => {}
                ["close"] => {
                    self.write(conn, b"bye\n");
                    self.effects.closes.push(conn);
                    self.known.remove(&conn);
                    progress.gone = true;
                    return progress;
                }
                ["closeall"] => {
                    for conn in self.known.keys() {
                        self.effects.closes.push(*conn);
                    }
                    self.known.clear();
                    progress.gone = true;
                    return progress;
                }
                ["flush", ..] => {
                    self.write(conn, line);
                    progress.flush = true;
                    progress.consumed += end + 1;
                    return progress;
                }
                ["hold"] if !self.held.contains(&conn) => {
                    self.held.push(conn);
                    self.tell(Event::Paused);
                    progress.paused = true;
                    return progress;
                }
                ["hold"] => self.held.retain(|held| *held != conn),
                ["note"] => self.tell(Event::Noted),
                ["big", bytes] => {
                    let bytes = bytes.parse().unwrap();
                    self.write(conn, &vec![b'x'; bytes]);
                }
                ["all", word] => {
                    let word = format!("{word}\n");
                    let all: Vec<ConnId> = self.known.keys().copied().collect();
                    for conn in all {
                        self.write(conn, word.as_bytes());
                    }
                }
                _ => {
                    let reply = format!("{}:{text}", self.id.0);
                    self.write(conn, reply.as_bytes());
                }
            }
            progress.consumed += end + 1;
        }
        progress
    }

    fn on_closed(&mut self, conn: ConnId, _: Millis) {
        assert!(self.known.remove(&conn).is_some(), "closed twice");
        self.tell(Event::Closed);
    }

    fn on_blocked(&mut self, _: ConnId, _: usize) {
        self.tell(Event::Blocked);
    }

    fn on_writable(&mut self, conn: ConnId, _: Millis) {
        self.write(conn, b"\nwritable\n");
        self.tell(Event::Writable);
    }

    fn on_mail(&mut self, _: Mail, _: Millis) {
        self.effects.resume.extend(&self.held);
    }

    fn on_outcome(&mut self, _: Ticket, _: Result<Outcome, StoreError>, _: Millis) {}
    fn on_page(&mut self, _: Ticket, _: Result<Page, StoreError>, _: Millis) {}
    fn on_verdict(&mut self, _: ConnId, _: Verdict, _: Millis) {}
    fn on_tick(&mut self, _: Millis) {}

    fn next_deadline(&self) -> Option<Millis> {
        None
    }

    fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn stats(&self) -> Stats {
        Stats {
            connections: self.known.len() as u64,
            ..Stats::default()
        }
    }

    fn stop(&mut self, _: Millis) {
        let all: Vec<ConnId> = self.known.drain().map(|(conn, _)| conn).collect();
        for conn in all {
            self.write(conn, b"stopping\n");
            self.effects.closes.push(conn);
        }
    }

    fn pending_requests(&self) -> usize {
        0
    }
}

struct NoServices;

impl Services for NoServices {
    fn cluster_mail(&mut self, _: Vec<(ShardId, Mail)>) {}

    fn statements(&mut self, _: Vec<(Ticket, Box<campanile_broker::effects::Statement>)>) {}
    fn commands(&mut self, _: Vec<(Ticket, Command)>) {}
    fn queries(&mut self, _: Vec<(Ticket, Query)>) {}
    fn authenticate(&mut self, _: Vec<(ConnId, Box<AuthRequest>)>) {}
}

/// Drivers with one listener.
struct World {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    events: mpsc::Receiver<Event>,
}

impl World {
    fn plain(shards: u8) -> World {
        World::of(shards, None, None, usize::MAX)
    }

    fn of(
        shards: u8,
        tls: Option<TlsSpec>,
        websocket_path: Option<&str>,
        max_connections: usize,
    ) -> World {
        let spec = ListenerSpec {
            name: "test".into(),
            address: ([127, 0, 0, 1], 0).into(),
            app: "default".into(),
            tls,
            websocket_path: websocket_path.map(Into::into),
            max_connections,
        };
        let (polls, mailboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| seat().unwrap()).unzip();
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            listeners: vec![Listening::open(&spec, &Arc::default()).unwrap()],
            tickets: Arc::default(),
            accept_budget: AcceptBudget::new(0, 0, Instant::now()),
            max_sockets: usize::MAX,
            figures: mailboxes.iter().map(|_| Mutex::default()).collect(),
            hub_waiting: Arc::default(),
            mailboxes,
        });
        let (sender, events) = mpsc::channel();
        let threads = polls.into_iter().enumerate().map(|(index, poll)| {
            let id = ShardId(index as u8);
            let (shared, sender) = (shared.clone(), sender.clone());
            std::thread::spawn(move || {
                let machine = Lines {
                    id,
                    known: HashMap::new(),
                    held: Vec::new(),
                    effects: Effects::default(),
                    outbox: Outbox::default(),
                    events: sender,
                };
                Driver::new(id, poll, shared, machine, NoServices)?.run()
            })
        });
        World {
            threads: threads.collect(),
            shared,
            events,
        }
    }

    fn address(&self) -> SocketAddr {
        self.shared.listeners[0].address
    }

    fn connect(&self) -> Client<TcpStream> {
        Client::new(connect(self.address()))
    }

    fn expect_event(&self, event: Event) {
        loop {
            let next = self.events.recv_timeout(PATIENCE);
            if next.unwrap_or_else(|_| panic!("no {event:?}")) == event {
                return;
            }
        }
    }

    fn figures(&self) -> Vec<Figures> {
        let figures = self.shared.figures.iter();
        figures.map(|one| one.lock().unwrap().clone()).collect()
    }

    fn stop(&mut self) -> Vec<Figures> {
        for mailbox in &self.shared.mailboxes {
            mailbox.post(Letter::Stop);
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap().unwrap();
        }
        self.figures()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
            assert_eq!(self.shared.listeners[0].connections(), 0);
        }
    }
}

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

struct Client<T: Read + Write>(BufReader<T>);

impl<T: Read + Write> Client<T> {
    fn new(stream: T) -> Client<T> {
        Client(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn expect(&mut self, line: &str) {
        let mut got = String::new();
        self.0.read_line(&mut got).unwrap();
        assert_eq!(got, format!("{line}\n"));
    }

    fn ask(&mut self, line: &str, answer: &str) {
        self.send(format!("{line}\n"));
        self.expect(answer);
    }

    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[test]
fn packets_in_pieces_and_in_bunches_are_put_together() {
    let world = World::plain(1);
    let mut client = world.connect();
    client.ask("one", "0:one");
    for piece in ["t", "w", "o\nthr", "ee\nfour\nfi", "ve\n"] {
        client.send(piece);
    }
    for line in ["0:two", "0:three", "0:four", "0:five"] {
        client.expect(line);
    }
    let long = "x".repeat(300_000);
    client.send(&long);
    client.ask("", &format!("0:{long}"));
    client.ask("after", "0:after");
}

#[test]
fn connection_moves_with_all_its_bytes() {
    let mut world = World::plain(3);
    let mut clients: Vec<_> = (0..20).map(|_| world.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let shard = index % 3;
        client.send(format!("move {shard}\nhello\nwor"));
        client.expect(&format!("{shard}:hello"));
        client.ask("ld", &format!("{shard}:world"));
    }
    drop(clients);
    let figures = world.stop();
    let accepted: u64 = figures.iter().map(|one| one.driver.accepted[0]).sum();
    assert_eq!(accepted, 20);
}

#[test]
fn closing_lets_the_peer_read_the_last_words_though_it_sends_on() {
    let world = World::plain(1);
    let mut client = world.connect();
    client.send("close\n");
    client.send("x".repeat(100_000));
    client.expect("bye");
    client.expect_end();
}

#[test]
fn closed_by_another_connection_in_the_same_turn_is_not_asked_again() {
    let world = World::plain(1);
    let mut clients: Vec<_> = (0..8).map(|_| world.connect()).collect();
    for client in &mut clients {
        client.ask("ready", "0:ready");
    }
    for client in &mut clients {
        client.send("closeall\nignored\n");
    }
    for client in &mut clients {
        client.expect_end();
    }
}

#[test]
fn peer_that_closes_is_reported_once() {
    let world = World::plain(1);
    let mut client = world.connect();
    client.ask("hello", "0:hello");
    drop(client);
    world.expect_event(Event::Closed);
}

#[test]
fn slots_are_used_again_without_mixing_connections_up() {
    let world = World::plain(2);
    for round in 0..50 {
        let mut client = world.connect();
        let shard = round % 2;
        client.send(format!("move {shard}\n"));
        client.ask("hello", &format!("{shard}:hello"));
    }
}

#[test]
fn slow_reader_blocks_only_itself_and_gets_everything() {
    const BYTES: usize = 12 << 20;
    let world = World::plain(1);
    let mut slow = world.connect();
    let mut other = world.connect();
    slow.send(format!("big {BYTES}\n"));
    world.expect_event(Event::Blocked);
    other.ask("hello", "0:hello");
    let mut all = vec![0; BYTES];
    slow.0.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == b'x'));
    slow.expect("");
    slow.expect("writable");
    world.expect_event(Event::Writable);
    slow.ask("hello", "0:hello");
}

#[test]
fn reader_that_never_reads_is_closed_at_the_limit() {
    let world = World::plain(1);
    let mut slow = world.connect();
    let mut other = world.connect();
    other.ask("hello", "0:hello");
    slow.send("big 12000000\n");
    world.expect_event(Event::Blocked);
    // Its own requests are not even read any more; what others cause fills its queue.
    let word = "y".repeat(500_000);
    for _ in 0..12 {
        other.ask(&format!("all {word}"), &word);
    }
    world.expect_event(Event::Closed);
    other.ask("hello", "0:hello");
}

#[test]
fn paused_connection_goes_on_with_what_was_not_consumed() {
    let world = World::plain(1);
    let mut client = world.connect();
    client.send("a\nhold\nb\n");
    client.expect("0:a");
    world.expect_event(Event::Paused);
    client.send("c\n");
    world.shared.mailboxes[0].post(Letter::Mail(Mail::InterestKnown { ticket: 0 }));
    client.expect("0:b");
    client.expect("0:c");
}

#[test]
fn what_a_peer_sent_before_it_closed_is_read_though_writing_fails() {
    let world = World::plain(1);
    let mut leaving = world.connect();
    let mut other = world.connect();
    leaving.ask("hello", "0:hello");
    leaving.send("hold\n");
    world.expect_event(Event::Paused);
    leaving.send("note\n");
    drop(leaving);
    // The first write makes the peer's kernel refuse, the next ones fail.
    for _ in 0..3 {
        other.ask("all word", "word");
    }
    world.shared.mailboxes[0].post(Letter::Mail(Mail::InterestKnown { ticket: 0 }));
    world.expect_event(Event::Noted);
    world.expect_event(Event::Closed);
}

#[test]
fn flush_that_is_asked_for_goes_on_at_once() {
    let world = World::plain(1);
    let mut client = world.connect();
    client.send("flush 1\nflush 2\nhold\nflush 3\nflush 4\nhello\n");
    client.expect("flush 1");
    client.expect("flush 2");
    world.expect_event(Event::Paused);
    world.shared.mailboxes[0].post(Letter::Mail(Mail::InterestKnown { ticket: 0 }));
    client.expect("flush 3");
    client.expect("flush 4");
    client.expect("0:hello");
}

#[test]
fn stop_says_goodbye_to_all() {
    let mut world = World::plain(2);
    let mut clients: Vec<_> = (0..10).map(|_| world.connect()).collect();
    for client in &mut clients {
        client.send("hello\n");
        let mut line = String::new();
        client.0.read_line(&mut line).unwrap();
    }
    for mailbox in &world.shared.mailboxes {
        mailbox.post(Letter::Stop);
    }
    for client in &mut clients {
        client.expect("stopping");
        client.expect_end();
    }
    drop(clients);
    let address = world.address();
    world.stop();
    drop(world);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn sockets_beyond_the_limit_are_closed_at_once() {
    let world = World::of(1, None, None, 2);
    let mut first = world.connect();
    let mut second = world.connect();
    first.ask("hello", "0:hello");
    second.ask("hello", "0:hello");
    let mut third = world.connect();
    third.expect_end();
    first.ask("hello", "0:hello");
}

fn upgrade<T: Read + Write>(client: &mut Client<T>) {
    client.send(
        "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
    );
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = client.0.read_line(&mut head).unwrap();
        assert!(read > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

fn masked(opcode: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    let mask = [1, 2, 3, 4].iter().cycle();
    frame.extend(payload.bytes().zip(mask).map(|(byte, mask)| byte ^ mask));
    frame
}

fn expect_bytes<T: Read + Write>(client: &mut Client<T>, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    client.0.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn websocket_carries_lines_and_closes_in_order() {
    let world = World::of(2, None, Some("/mqtt"), usize::MAX);
    for shard in ["0", "1"] {
        let mut client = world.connect();
        upgrade(&mut client);
        client.send(masked(2, &format!("move {shard}\nhe")));
        client.send(masked(2, "llo\nworld\n"));
        let expected = format!("\u{8}{shard}:hello\n{shard}:world\n");
        let mut got = Vec::new();
        while got.len() < 20 {
            let mut header = [0; 2];
            client.0.read_exact(&mut header).unwrap();
            assert_eq!(header[0], 0x82);
            let mut payload = vec![0; header[1] as usize];
            client.0.read_exact(&mut payload).unwrap();
            got.extend(payload);
            if got.len() >= expected.len() - 1 {
                break;
            }
        }
        assert_eq!(String::from_utf8(got).unwrap(), &expected[1..]);
        client.send(masked(2, "close\n"));
        expect_bytes(&mut client, b"\x82\x04bye\n\x88\x02\x03\xE8");
        client.expect_end();
    }
}

#[test]
fn websocket_text_frame_and_close_frame_end_the_connection() {
    let world = World::of(1, None, Some("/mqtt"), usize::MAX);
    let mut client = world.connect();
    upgrade(&mut client);
    client.send(masked(1, "hello"));
    expect_bytes(&mut client, b"\x88\x02\x03\xEB");
    client.expect_end();
    world.expect_event(Event::Closed);
    let mut client = world.connect();
    upgrade(&mut client);
    client.send(masked(8, "\u{3}"));
    expect_bytes(&mut client, b"\x88\x00");
    client.expect_end();
    world.expect_event(Event::Closed);
}

#[test]
fn websocket_path_that_is_unknown_gets_an_answer() {
    let world = World::of(1, None, Some("/mqtt"), usize::MAX);
    let mut client = world.connect();
    client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut text = String::new();
    client.0.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
}

/// A self-made authority with a certificate for localhost, in files.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Certificates {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates { directory };
        certificates.write_new();
        certificates
    }

    /// Another key and certificate in the same files.
    fn write_new(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(self.file(name), text).unwrap();
        };
        write("cert.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn spec(&self, client_auth: ClientAuth) -> TlsSpec {
        TlsSpec {
            certificate_file: self.file("cert.pem"),
            key_file: self.file("key.pem"),
            client_ca_file: Some(self.file("cert.pem")),
            client_auth,
        }
    }

    fn connect(
        &self,
        address: SocketAddr,
        with_certificate: bool,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Client<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        let load = |path: &Path| rustls_pki_types::CertificateDer::from_pem_file(path).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(load(&self.file("cert.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let key = rustls_pki_types::PrivateKeyDer::from_pem_file(self.file("key.pem")).unwrap();
            let chain = vec![load(&self.file("cert.pem"))];
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        let name = "localhost".try_into().unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Client::new(rustls::StreamOwned::new(connection, connect(address)))
    }
}

#[test]
fn tls_carries_lines_moves_and_closes_in_order() {
    let certificates = Certificates::make();
    let world = World::of(
        2,
        Some(certificates.spec(ClientAuth::Off)),
        None,
        usize::MAX,
    );
    for version in [&TLS13, &TLS12] {
        for shard in ["0", "1"] {
            let mut client = certificates.connect(world.address(), false, version);
            client.send(format!("move {shard}\nhello\nwor"));
            client.expect(&format!("{shard}:hello"));
            client.ask("ld", &format!("{shard}:world"));
            let long = "x".repeat(100_000);
            client.ask(&long, &format!("{shard}:{long}"));
            client.send("close\n");
            client.expect("bye");
            // An end without close_notify would be an error here.
            client.expect_end();
        }
    }
}

#[test]
fn tls_slow_reader_gets_everything() {
    const BYTES: usize = 12 << 20;
    let certificates = Certificates::make();
    let world = World::of(
        1,
        Some(certificates.spec(ClientAuth::Off)),
        None,
        usize::MAX,
    );
    let mut client = certificates.connect(world.address(), false, &TLS13);
    client.send(format!("big {BYTES}\n"));
    world.expect_event(Event::Blocked);
    let mut all = vec![0; BYTES];
    client.0.read_exact(&mut all).unwrap();
    client.expect("");
    client.expect("writable");
}

#[test]
fn mutual_tls_wants_a_certificate() {
    let certificates = Certificates::make();
    for (client_auth, with_certificate, works) in [
        (ClientAuth::Optional, false, true),
        (ClientAuth::Required, false, false),
    ] {
        let world = World::of(1, Some(certificates.spec(client_auth)), None, usize::MAX);
        let mut client = certificates.connect(world.address(), with_certificate, &TLS13);
        if works {
            client.ask("hello", "0:hello");
        } else {
            let mut line = String::new();
            let sent = client.0.get_mut().write_all(b"hello\n");
            let got = sent.and_then(|()| client.0.read_line(&mut line));
            assert!(got.is_err(), "{line}");
        }
    }
}

#[test]
fn certificate_is_exchanged_for_new_connections() {
    let certificates = Certificates::make();
    let spec = certificates.spec(ClientAuth::Off);
    let world = World::of(1, Some(spec), None, usize::MAX);
    let tls = world.shared.listeners[0].tls.as_ref().unwrap();
    let mut before = certificates.connect(world.address(), false, &TLS13);
    before.ask("hello", "0:hello");
    certificates.write_new();
    tls.reload().unwrap();
    let mut after = certificates.connect(world.address(), false, &TLS13);
    after.ask("hello", "0:hello");
    before.ask("still", "0:still");
    std::fs::write(certificates.file("key.pem"), "nonsense").unwrap();
    tls.reload().unwrap_err();
    certificates
        .connect(world.address(), false, &TLS13)
        .ask("hello", "0:hello");
}

#[test]
fn garbage_instead_of_tls_is_refused() {
    let certificates = Certificates::make();
    let mut world = World::of(
        1,
        Some(certificates.spec(ClientAuth::Off)),
        None,
        usize::MAX,
    );
    let mut client = world.connect();
    client.send("GET / HTTP/1.1\r\n\r\n");
    let mut alert = Vec::new();
    client.0.read_to_end(&mut alert).unwrap();
    world.expect_event(Event::Closed);
    assert_eq!(world.stop()[0].driver.tls_errors, 1);
}

#[test]
fn websocket_over_tls_carries_lines() {
    let certificates = Certificates::make();
    let spec = Some(certificates.spec(ClientAuth::Off));
    let world = World::of(1, spec, Some("/mqtt"), usize::MAX);
    let mut client = certificates.connect(world.address(), false, &TLS13);
    upgrade(&mut client);
    client.send(masked(9, "ping"));
    expect_bytes(&mut client, b"\x8A\x04ping");
    client.send(masked(2, "hello\n"));
    expect_bytes(&mut client, b"\x82\x080:hello\n");
    client.send(masked(2, "close\n"));
    expect_bytes(&mut client, b"\x82\x04bye\n\x88\x02\x03\xE8");
    client.expect_end();
}
