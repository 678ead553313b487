//! Sockets of a fleet.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use campanile_mqtt::Version;
use mio::net::TcpStream;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType},
};

/// How a fleet connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where MQTT links go, in turn.
    pub mqtt: Vec<SocketAddr>,
    /// Where HTTP links go, in turn.
    pub http: Vec<SocketAddr>,
    /// Protocol of all MQTT links.
    pub version: Version,
    /// User name and password of all MQTT links.
    pub login: Option<(String, String)>,
    /// Handshakes under way at a time. Above the server's listen backlog, SYNs are dropped and come again a second later.
    pub concurrency: usize,
    /// How long nothing may come before a run is given up.
    pub stall: Duration,
    /// Distinguishes this run from others in topics, client ids and payloads.
    pub run: u32,
}

/// Local addresses to connect from: a pair of addresses has only some 28,000 ports, those of a finished run wait a minute, and
/// finding a free one becomes slow before they are used up. All of 127.0.0.0/8 is ours.
pub struct Sources {
    base: Option<u32>,
    dialed: u32,
}

/// Connections from one local address.
const PER_SOURCE: u32 = 4_000;

impl Sources {
    pub(super) fn new(options: &Options) -> Sources {
        // Any of the 65,536 networks 127.x.y.0/24, so that runs seldom meet.
        let base = u32::from(Ipv4Addr::new(127, 0, 0, 0)) | (options.run & 0xFFFF) << 8;
        let mut targets = options.mqtt.iter();
        let local = targets.all(|address| address.ip().is_loopback() && address.is_ipv4());
        Sources {
            base: local.then_some(base),
            dialed: 0,
        }
    }

    fn next(&mut self) -> Option<SocketAddr> {
        let host = 1 + self.dialed / PER_SOURCE % 250;
        self.dialed = self.dialed.wrapping_add(1);
        let address = Ipv4Addr::from_bits(self.base? | host);
        Some(SocketAddr::new(IpAddr::V4(address), 0))
    }
}

/// Starts to connect.
pub(super) fn dial(to: SocketAddr, sources: &mut Sources) -> io::Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    net::sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(source) = sources.next() {
        net::bind(&socket, &source)?;
    }
    match net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(TcpStream::from_std(socket.into()))
}
