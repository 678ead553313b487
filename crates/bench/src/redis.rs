//! What a Redis has had to do, by its own account.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::report::Metric;

/// Longer than any answer takes that is of use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counters since the server started, or between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Requests read from sockets: a pipeline that comes in one piece is one. An upper bound of round trips; waits for new
    /// entries are among them.
    reads: f64,
    /// Scripts called.
    scripts: f64,
    /// Commands, those of scripts among them.
    commands: f64,
    /// CPU time, seconds.
    cpu: f64,
}

impl Work {
    /// What was done from `before` until this.
    pub fn since(self, before: Work) -> Work {
        Work {
            reads: self.reads - before.reads,
            scripts: self.scripts - before.scripts,
            commands: self.commands - before.commands,
            cpu: self.cpu - before.cpu,
        }
    }

    /// For each of `count` things.
    pub fn metrics(self, thing: &str, count: u64) -> Vec<Metric> {
        let each = |sum: f64| sum / count.max(1) as f64;
        vec![
            Metric::new(format!("Redis requests per {thing}"), each(self.reads), ""),
            Metric::new(format!("Redis scripts per {thing}"), each(self.scripts), ""),
            Metric::new(
                format!("Redis commands per {thing}"),
                each(self.commands),
                "",
            ),
            Metric::new(format!("Redis CPU per {thing}"), each(self.cpu * 1e6), "µs"),
        ]
    }

    /// Reads the answer to `INFO all`.
    fn parse(info: &str) -> Work {
        let mut work = Work::default();
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let number = || value.parse().unwrap_or(0.0);
            match name {
                "total_reads_processed" => work.reads = number(),
                "used_cpu_sys" | "used_cpu_user" => work.cpu += number(),
                _ => {}
            }
            let Some(command) = name.strip_prefix("cmdstat_") else {
                continue;
            };
            let calls = value
                .split(',')
                .find_map(|part| part.strip_prefix("calls="));
            let calls: f64 = calls.and_then(|calls| calls.parse().ok()).unwrap_or(0.0);
            work.commands += calls;
            if matches!(command, "eval" | "evalsha" | "fcall") {
                work.scripts += calls;
            }
        }
        work
    }
}

/// Asks a server for its counters.
pub fn work(address: SocketAddr) -> io::Result<Work> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"INFO all\r\n")?;
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    answer.read_line(&mut head)?;
    let bytes = head.trim_end().strip_prefix('$');
    let bytes: usize = bytes
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| io::Error::other(format!("Redis answered {head:?}")))?;
    let mut info = vec![0; bytes];
    answer.read_exact(&mut info)?;
    Ok(Work::parse(&String::from_utf8_lossy(&info)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_found_and_subtracted() {
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.5\r\ntotal_reads_processed:70\r\n\
            cmdstat_evalsha:calls=20,usec=5,usec_per_call=0.25\r\ncmdstat_xadd:calls=30,usec=1\r\n";
        let after = Work::parse(info);
        let expect = Work {
            reads: 70.0,
            scripts: 20.0,
            commands: 50.0,
            cpu: 4.0,
        };
        assert_eq!(after, expect);
        let before = Work {
            reads: 50.0,
            ..expect
        };
        let each = after.since(before).metrics("push", 10);
        assert_eq!(each[0], Metric::new("Redis requests per push", 2.0, ""));
    }
}
