//! A network of hosts on this machine, which loses packets where it is told to.
//!
//! A host is a network namespace with an address on a bridge; the bridge is in the namespace of this process, which therefore reaches all hosts, whatever they
//! have lost of each other. Each host drops (nftables) what arrives from others it is cut off from: as on a real network, the sender hears nothing, connections stay
//! open, and what was lost is sent again by TCP in its own time. A host goes with the last [`Place`] on it, also when this process is killed: what holds its
//! namespace ends with a pipe.
//!
//! A process needs a namespace of its own for that: see [`inside`].

pub mod inside;
mod place;

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};

pub use self::place::Place;
use self::place::{Host, run};

/// What the hosts are on. The name is seen in this process's namespace only.
const BRIDGE: &str = "hosts";
/// Hosts of a network: the last byte of an address tells them apart, and 1 is the bridge's.
const HOSTS_MAX: usize = 200;

/// How a way between two hosts is lost. The first of the two is the one that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Whatever either says is answered by a reset: connections end, and new ones are refused.
    Refused,
    /// Packets vanish in both directions.
    Silent,
    /// Packets to the first vanish: it is heard, and hears nothing.
    Deaf,
    /// Packets from the first vanish: it hears, and is not heard.
    Mute,
}

impl Cut {
    /// All of them.
    pub const ALL: [Cut; 4] = [Cut::Refused, Cut::Silent, Cut::Deaf, Cut::Mute];
}

/// Hosts that reach each other.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Place>,
}

impl Network {
    /// A network without hosts. There can be one at a time in a namespace.
    pub fn new() -> anyhow::Result<Network> {
        ensure!(
            inside::is_inside(),
            "a network of hosts needs a process in a namespace of its own: see `network::inside`"
        );
        let lines = format!(
            "link set lo up\nlink add name {BRIDGE} type bridge\naddr add {}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n",
            address(0)
        );
        run(Place::default().command("ip").args(["-batch", "-"]), &lines)
            .context("cannot make a bridge")?;
        Ok(Network { hosts: Vec::new() })
    }

    /// Adds a host.
    pub fn host(&mut self) -> anyhow::Result<Place> {
        let number = self.hosts.len() + 1;
        ensure!(
            number <= HOSTS_MAX,
            "a network has at most {HOSTS_MAX} hosts"
        );
        let host = Host::start(address(number), number)?;
        let place = Place::on(host);
        self.hosts.push(place.clone());
        Ok(place)
    }

    /// Adds several.
    pub fn hosts(&mut self, count: usize) -> anyhow::Result<Vec<Place>> {
        (0..count).map(|_| self.host()).collect()
    }

    /// Cuts a host off from others, in addition to what is cut already.
    pub fn cut(&self, from: &Place, others: &[Place], cut: Cut) -> anyhow::Result<()> {
        let (hears, is_heard) = match cut {
            Cut::Refused => (Some("refused"), Some("refused")),
            Cut::Silent => (Some("lost"), Some("lost")),
            Cut::Deaf => (Some("lost"), None),
            Cut::Mute => (None, Some("lost")),
        };
        for other in others.iter().filter(|other| other.ip() != from.ip()) {
            if let Some(set) = hears {
                from.host()?.block(other.ip(), set)?;
            }
            if let Some(set) = is_heard {
                other.host()?.block(from.ip(), set)?;
            }
        }
        Ok(())
    }

    /// Lets everything pass again.
    pub fn mend(&self) -> anyhow::Result<()> {
        self.hosts
            .iter()
            .try_for_each(|place| place.host()?.unblock())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The next one may be made in the same namespace; if there is none, the bridge goes with the process.
        let mut remove = Place::default().command("ip");
        let _ = run(remove.args(["link", "delete", BRIDGE]), "");
    }
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number as u8 + 1)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        process::Stdio,
        time::Duration,
    };

    use super::*;
    use crate::process::wait_for;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A listener on one host that sends back what it gets, and a connection of the other: pipes to what dials.
    struct Line {
        listener: std::process::Child,
        dialer: std::process::Child,
    }

    const ECHO: &str = "import socket, sys
listener = socket.create_server((sys.argv[1], 700))
while True:
    stream, _ = listener.accept()
    while data := stream.recv(1):
        stream.sendall(data)
";
    /// Sends a byte for each line, and says what came of it within that many seconds.
    const DIAL: &str = "import socket, sys, time
deadline = time.time() + float(sys.argv[2])
while True:
    try:
        stream = socket.create_connection((sys.argv[1], 700), 1)
        break
    except OSError:
        if time.time() > deadline: raise
        time.sleep(0.01)
for number, line in enumerate(sys.stdin):
    try:
        stream.settimeout(float(line))
        stream.sendall(bytes([number]))
        while (byte := stream.recv(1)) != bytes([number]):
            if not byte: raise EOFError
        print('back', flush=True)
    except TimeoutError:
        print('nothing', flush=True)
    except (OSError, EOFError) as error:
        print(type(error).__name__, flush=True)
";

    impl Line {
        fn open(one: &Place, other: &Place, patience: &str) -> Line {
            let start = |place: &Place, program: &str| {
                let mut command = place.command("python3");
                command.args(["-c", program, &one.ip().to_string(), patience]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command.spawn().unwrap()
            };
            Line {
                listener: start(one, ECHO),
                dialer: start(other, DIAL),
            }
        }

        /// Sends a byte, and tells what came of it within so many seconds.
        fn say(&mut self, seconds: &str) -> String {
            let stdin = self.dialer.stdin.as_mut().unwrap();
            writeln!(stdin, "{seconds}").unwrap();
            let (mut heard, mut byte) = (String::new(), [0]);
            let stdout = self.dialer.stdout.as_mut().unwrap();
            while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                heard.push(char::from(byte[0]));
            }
            heard
        }
    }

    impl Drop for Line {
        fn drop(&mut self) {
            for child in [&mut self.listener, &mut self.dialer] {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    #[test]
    fn packets_vanish_and_come_again_once_the_way_is_mended() {
        inside::test(|| {
            let mut network = Network::new().unwrap();
            let hosts = network.hosts(3).unwrap();
            let mut line = Line::open(&hosts[0], &hosts[1], "10");
            let mut other = Line::open(&hosts[2], &hosts[1], "10");
            assert_eq!(line.say("5"), "back");
            for cut in [Cut::Silent, Cut::Deaf, Cut::Mute] {
                network.cut(&hosts[0], &hosts[1..2], cut).unwrap();
                assert_eq!(line.say("0.3"), "nothing", "{cut:?}");
                assert_eq!(other.say("5"), "back");
                network.mend().unwrap();
                assert_eq!(line.say("5"), "back", "{cut:?}");
            }
        });
    }

    #[test]
    fn connections_are_reset_and_refused() {
        inside::test(|| {
            let mut network = Network::new().unwrap();
            let hosts = network.hosts(2).unwrap();
            let mut line = Line::open(&hosts[0], &hosts[1], "10");
            assert_eq!(line.say("5"), "back");
            network.cut(&hosts[0], &hosts[1..], Cut::Refused).unwrap();
            assert_eq!(line.say("5"), "ConnectionResetError");
            let mut again = Line::open(&hosts[0], &hosts[1], "0");
            let ended = wait_for("a dialer that gives up", PATIENCE, || {
                Ok(again.dialer.try_wait()?)
            });
            assert!(!ended.unwrap().success());
        });
    }

    #[test]
    fn hosts_go_with_what_holds_them() {
        inside::test(|| {
            let mut network = Network::new().unwrap();
            let place = network.host().unwrap();
            let ip = place.ip();
            drop((network, place));
            wait_for("a host that is gone", PATIENCE, || {
                let dialed = std::net::TcpStream::connect_timeout(
                    &(ip, 700).into(),
                    Duration::from_millis(100),
                );
                // Neither a refusal nor silence of a host: there is no way to it.
                Ok((dialed.unwrap_err().kind() == ErrorKind::NetworkUnreachable).then_some(()))
            })
            .unwrap();
        });
    }
}
