//! The operator's end of the admin socket: questions and answers with a node that runs.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{LONGEST_LINE, Reply, Request, socket_path};

/// How long the node may take for a command; a little more than it allows itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// No node takes commands there.
    #[error(
        "no node takes commands at {}: {cause}; start it, or name the data directory of one that runs with --data or --config",
        socket.display()
    )]
    NoNode {
        /// Where it should listen.
        socket: PathBuf,
        /// What came of trying.
        cause: io::Error,
    },
    /// It broke.
    #[error("asking the node at {}: {cause}", socket.display())]
    Broken {
        /// Where it listens.
        socket: PathBuf,
        /// What happened.
        cause: io::Error,
    },
    /// The node says no.
    #[error("refused: {0}")]
    Refused(String),
}

/// A conversation with a node.
pub struct Node {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Node {
    /// The node that uses a data directory.
    pub fn of(data_dir: &Path) -> Result<Node, ConversationError> {
        let socket = socket_path(data_dir);
        Node::connect(&socket).map_err(|cause| ConversationError::NoNode { socket, cause })
    }

    /// The node that listens at a socket.
    pub fn connect(socket: &Path) -> io::Result<Node> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Node {
            socket: socket.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// One question, one answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ConversationError> {
        self.converse(request)
            .map_err(|cause| ConversationError::Broken {
                socket: self.socket.clone(),
                cause,
            })
    }

    /// The answer is to another question.
    pub fn misunderstood(&self, reply: &Reply) -> ConversationError {
        ConversationError::Broken {
            socket: self.socket.clone(),
            cause: io::Error::other(format!("it answered another question: {reply:?}")),
        }
    }

    fn converse(&mut self, request: &Request) -> io::Result<Reply> {
        let mut line = serde_json::to_string(request).map_err(io::Error::other)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        line.clear();
        let mut stream = (&mut self.stream).take(LONGEST_LINE);
        stream.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it closed the connection without an answer",
            ));
        }
        serde_json::from_str(&line).map_err(|error| {
            io::Error::other(format!(
                "it answered what this version does not understand: {error}"
            ))
        })
    }
}
