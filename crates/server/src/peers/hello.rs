//! How two nodes agree on a link, without IO: what they say first, and what they refuse.

use std::sync::Arc;

use campanile_broker::ids::Generation;

use super::wire;

/// Larger hellos are not read.
pub const HELLO_BYTES_MAX: usize = 8 * 1024;

/// Versions and abilities of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The newest version that it speaks.
    pub version: u32,
    /// The oldest one.
    pub lowest: u32,
    /// What it can do beside, as bits.
    pub capabilities: u64,
}

impl Dialect {
    /// What this program speaks.
    pub const OWN: Dialect = Dialect {
        version: wire::VERSION,
        lowest: wire::LOWEST,
        capabilities: wire::CAPABILITIES,
    };
}

/// Who speaks.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Its name.
    pub name: Arc<str>,
    /// This run of it.
    pub generation: Generation,
    /// Version of its program.
    pub program: Arc<str>,
    /// The name of its cluster.
    pub cluster: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// It reads no larger frame.
    pub frame_bytes_max: usize,
}

/// What both ends of a link agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The newest version that both speak.
    pub protocol: u32,
    /// What both can do.
    pub capabilities: u64,
    /// The other end reads no larger frame.
    pub frame_bytes_max: usize,
    /// Version of its program.
    pub program: Arc<str>,
}

/// Why there is no link, as told to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Of a later version.
    Other = 0,
    /// One of the generations is not known, or not known any more: somebody's view of the members is late. Will soon be better.
    Unknown = 1,
    /// It is of another cluster.
    Cluster = 2,
    /// There is no version that both speak.
    Version = 3,
    /// Not a node, or one that has mistaken who dials.
    Protocol = 4,
}

impl RefusalCode {
    /// The code of that number.
    pub fn from_number(number: u32) -> RefusalCode {
        [
            RefusalCode::Unknown,
            RefusalCode::Cluster,
            RefusalCode::Version,
            RefusalCode::Protocol,
        ]
        .into_iter()
        .find(|code| *code as u32 == number)
        .unwrap_or(RefusalCode::Other)
    }
}

/// A refusal: what it means and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it means.
    pub code: RefusalCode,
    /// The value, the rule and the way out.
    pub text: String,
}

impl Speaker {
    /// What it says first.
    pub fn hello(&self, to: Generation) -> wire::Hello {
        wire::Hello {
            magic: wire::MAGIC,
            version: self.dialect.version,
            lowest: self.dialect.lowest,
            capabilities: self.dialect.capabilities,
            cluster: self.cluster.to_string(),
            name: self.name.to_string(),
            generation: self.generation.0,
            to: to.0,
            program: self.program.to_string(),
            frame_bytes_max: self.frame_bytes_max as u64,
        }
    }

    /// Judges the hello of the other end, which is `expected` if there may be a link to its generation.
    pub fn judge<P>(
        &self,
        hello: &wire::Hello,
        expected: Option<P>,
    ) -> Result<(Agreed, P), Refused> {
        let refuse = |code, text| Err(Refused { code, text });
        if hello.magic != wire::MAGIC {
            return refuse(
                RefusalCode::Protocol,
                "the other end is no campanile node".into(),
            );
        }
        let protocol = hello.version.min(self.dialect.version);
        if protocol < hello.lowest.max(self.dialect.lowest) {
            let text = format!(
                "node {:?} ({}) speaks versions {} to {} of the peer protocol, node {:?} ({}) {} to {}: upgrade by one release at a time",
                hello.name,
                hello.program,
                hello.lowest,
                hello.version,
                self.name,
                self.program,
                self.dialect.lowest,
                self.dialect.version
            );
            return refuse(RefusalCode::Version, text);
        }
        if hello.cluster != *self.cluster {
            let text = format!(
                "node {:?} is of cluster {:?}, node {:?} of cluster {:?}: nodes that serve together need the same cluster name",
                hello.name, hello.cluster, self.name, self.cluster
            );
            return refuse(RefusalCode::Cluster, text);
        }
        let is_meant = self.generation != Generation::ALONE && hello.to == self.generation.0;
        let Some(expected) = expected.filter(|_| is_meant) else {
            let text = format!(
                "node {:?} (generation {}, to {}) is not among the peers of node {:?} (generation {}); retry",
                hello.name,
                Generation(hello.generation),
                Generation(hello.to),
                self.name,
                self.generation
            );
            return refuse(RefusalCode::Unknown, text);
        };
        let agreed = Agreed {
            protocol,
            capabilities: hello.capabilities & self.dialect.capabilities,
            frame_bytes_max: match hello.frame_bytes_max {
                0 => self.frame_bytes_max,
                max => usize::try_from(max).unwrap_or(usize::MAX),
            },
            program: hello.program.as_str().into(),
        };
        Ok((agreed, expected))
    }
}
