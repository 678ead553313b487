//! TCP proxies that can be cut, held, and held in one direction: partitions without privileges.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How soon a connection that carries nothing notices a change.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a target may take to accept.
const CONNECT: Duration = Duration::from_secs(1);
/// What a dialer may say before it is known by it.
const INTRODUCTION_BYTES_MAX: usize = 8 * 1024;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    #[default]
    Open,
    /// They wait, as where packets are lost: the connection stays open, and they pass when the wire is mended.
    Held,
    /// Connections end, and new ones are closed at once.
    Cut,
}

/// The state of what lies between two ends. Clones are the same wire.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    shared: Arc<(Mutex<Flows>, Condvar)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flows {
    there: Flow,
    back: Flow,
}

/// Seen from the end that dials.
#[derive(Clone, Copy, Debug)]
enum Direction {
    There,
    Back,
}

impl Wire {
    /// Sets both directions: from the end that dials, and back to it.
    pub fn set(&self, there: Flow, back: Flow) {
        let (flows, changed) = &*self.shared;
        *flows.lock().unwrap_or_else(PoisonError::into_inner) = Flows { there, back };
        changed.notify_all();
    }

    /// Ends all connections, and lets no new one through.
    pub fn cut(&self) {
        self.set(Flow::Cut, Flow::Cut);
    }

    /// Nothing passes; connections stay open.
    pub fn hold(&self) {
        self.set(Flow::Held, Flow::Held);
    }

    /// Everything passes.
    pub fn mend(&self) {
        self.set(Flow::Open, Flow::Open);
    }

    fn flow(&self, direction: Direction) -> Flow {
        let flows = *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        flows.of(direction)
    }

    /// Waits while bytes of a direction are held. `false`: the connection is to end.
    fn passes(&self, direction: Direction, ended: &AtomicBool) -> bool {
        let (flows, changed) = &*self.shared;
        let mut flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match flows.of(direction) {
                _ if ended.load(Ordering::Relaxed) => return false,
                Flow::Open => return true,
                Flow::Cut => return false,
                Flow::Held => {
                    let woken = changed.wait_timeout(flows, LOOK_EVERY);
                    flows = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.flow(Direction::There) == Flow::Cut || self.flow(Direction::Back) == Flow::Cut
    }
}

impl Flows {
    fn of(self, direction: Direction) -> Flow {
        match direction {
            Direction::There => self.there,
            Direction::Back => self.back,
        }
    }
}

/// Tells by what a dialer says first which wire it is on; `None`: that is not clear yet.
type Choose = dyn Fn(&[u8]) -> Option<Wire> + Send + Sync;

/// Listens on a free loopback port and passes what comes to its target. Ends when dropped, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.address)
    }
}

impl Proxy {
    /// All connections are on one wire.
    pub fn start(target: SocketAddr, wire: Wire) -> anyhow::Result<Proxy> {
        Proxy::start_choosing(target, move |_| Some(wire.clone()))
    }

    /// What a dialer says first chooses the wire.
    pub fn start_choosing(
        target: SocketAddr,
        choose: impl Fn(&[u8]) -> Option<Wire> + Send + Sync + 'static,
    ) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ended = Arc::<AtomicBool>::default();
        let choose: Arc<Choose> = Arc::new(choose);
        let listening = thread::spawn({
            let ended = ended.clone();
            move || {
                for dialer in listener.incoming().map_while(Result::ok) {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let (choose, ended) = (choose.clone(), ended.clone());
                    // A connection that fails is what a proxy passes on by closing it.
                    thread::spawn(move || drop(carry(dialer, target, &*choose, &ended)));
                }
            }
        });
        Ok(Proxy {
            address,
            ended,
            listening: Some(listening),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listening thread.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn carry(
    mut dialer: TcpStream,
    target: SocketAddr,
    choose: &Choose,
    ended: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    dialer.set_nodelay(true)?;
    dialer.set_read_timeout(Some(LOOK_EVERY))?;
    let mut said = Vec::new();
    let wire = loop {
        if let Some(wire) = choose(&said) {
            break wire;
        }
        let mut more = [0; 1024];
        let count = match dialer.read(&mut more) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if is_pause(&error) && !ended.load(Ordering::Relaxed) => continue,
            Err(error) => return Err(error),
        };
        said.extend_from_slice(&more[..count]);
        if said.len() > INTRODUCTION_BYTES_MAX {
            return Ok(());
        }
    };
    if wire.is_cut() {
        return Ok(());
    }
    let listener = TcpStream::connect_timeout(&target, CONNECT)?;
    listener.set_nodelay(true)?;
    listener.set_read_timeout(Some(LOOK_EVERY))?;
    let back = {
        let (from, to) = (listener.try_clone()?, dialer.try_clone()?);
        let (wire, ended) = (wire.clone(), ended.clone());
        thread::spawn(move || pump(from, to, Vec::new(), &wire, Direction::Back, &ended))
    };
    pump(dialer, listener, said, &wire, Direction::There, ended);
    let _ = back.join();
    Ok(())
}

/// Passes bytes of one direction until its end; then both directions end.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    first: Vec<u8>,
    wire: &Wire,
    direction: Direction,
    ended: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut waiting = first;
    loop {
        if !waiting.is_empty() {
            if !wire.passes(direction, ended) || to.write_all(&waiting).is_err() {
                break;
            }
            waiting.clear();
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => waiting.extend_from_slice(&buffer[..count]),
            Err(error) if is_pause(&error) => {
                if ended.load(Ordering::Relaxed) || wire.is_cut() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    // The end passes only where bytes do: who is cut off does not hear that the other has gone.
    if wire.passes(direction, ended) || wire.is_cut() || ended.load(Ordering::Relaxed) {
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..count]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn dial(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        stream
    }

    fn read(stream: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    }

    #[test]
    fn held_bytes_pass_once_the_wire_is_mended() {
        let wire = Wire::default();
        let proxy = Proxy::start(echo(), wire.clone()).unwrap();
        let mut stream = dial(&proxy);
        stream.write_all(b"a").unwrap();
        assert_eq!(read(&mut stream), Some(b'a'));
        wire.set(Flow::Open, Flow::Held);
        stream.write_all(b"b").unwrap();
        assert_eq!(read(&mut stream), None);
        wire.mend();
        assert_eq!(read(&mut stream), Some(b'b'));
    }

    #[test]
    fn cut_ends_connections_and_refuses_new_ones() {
        let wire = Wire::default();
        let proxy = Proxy::start(echo(), wire.clone()).unwrap();
        let mut stream = dial(&proxy);
        stream.write_all(b"a").unwrap();
        assert_eq!(read(&mut stream), Some(b'a'));
        wire.cut();
        stream.set_read_timeout(None).unwrap();
        assert_eq!(read(&mut stream), None);
        let mut refused = dial(&proxy);
        let _ = refused.write_all(b"a");
        assert_eq!(read(&mut refused), None);
        wire.mend();
        let mut again = dial(&proxy);
        again.write_all(b"a").unwrap();
        assert_eq!(read(&mut again), Some(b'a'));
    }

    #[test]
    fn what_is_said_first_chooses_the_wire() {
        let (one, other) = (Wire::default(), Wire::default());
        let chosen = (one.clone(), other.clone());
        let proxy = Proxy::start_choosing(echo(), move |said| match said.first()? {
            b'1' => Some(chosen.0.clone()),
            _ => Some(chosen.1.clone()),
        })
        .unwrap();
        other.hold();
        let (mut first, mut second) = (dial(&proxy), dial(&proxy));
        first.write_all(b"1").unwrap();
        second.write_all(b"2").unwrap();
        assert_eq!(read(&mut first), Some(b'1'));
        assert_eq!(read(&mut second), None);
        other.mend();
        assert_eq!(read(&mut second), Some(b'2'));
    }
}
