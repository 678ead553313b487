//! The node's end of the admin socket.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use campanile_api::{Store, cluster::Cluster};
use campanile_push::store::Unavailable;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    select,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{LONGEST_LINE, Reply, Request, Wanted, change_apps, cluster, socket_path};

/// Conversations at a time; more wait.
const MOST_CONVERSATIONS: usize = 8;
/// How long a conversation may take, the store's time included.
const CONVERSATION: Duration = Duration::from_secs(15);
/// Pause after an accept that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket on Linux, the final zero not counted.
const LONGEST_PATH: usize = 107;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into an address.
    #[error("{}: a socket's path has at most {LONGEST_PATH} bytes: use a shorter data directory", .0.display())]
    TooLong(PathBuf),
    /// The operating system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Listens for commands. The socket's file goes when this does.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens in a data directory that this process owns; a file that an earlier node left is replaced. Needs a tokio runtime.
    pub fn open(data_dir: &Path) -> Result<AdminSocket, SocketError> {
        let path = socket_path(data_dir);
        match bind(data_dir, &path) {
            Ok(listener) => Ok(AdminSocket { listener, path }),
            Err(_) if path.as_os_str().len() + NURSERY.len() > LONGEST_PATH => {
                Err(SocketError::TooLong(path))
            }
            Err(cause) => Err(SocketError::Io { path, cause }),
        }
    }

    /// Carries out commands until `shutdown` is ready.
    pub async fn serve(
        self,
        store: Arc<dyn Store>,
        cluster: Arc<dyn Cluster>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut conversations = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            select! {
                () = &mut shutdown => break,
                Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
                stream = self.accept(), if conversations.len() < MOST_CONVERSATIONS => {
                    conversations.spawn(timeout(CONVERSATION, converse(stream, store.clone(), cluster.clone())));
                }
            }
        }
        conversations.shutdown().await;
    }

    async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // It may be gone with its directory.
    }
}

/// Directory in which a socket is born: nobody else can reach it before its mode is right.
const NURSERY: &str = ".admin/";

fn bind(data_dir: &Path, path: &Path) -> io::Result<UnixListener> {
    let nursery = data_dir.join(NURSERY);
    match fs::DirBuilder::new().mode(0o700).create(&nursery) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(&nursery, fs::Permissions::from_mode(0o700))?,
    }
    let newborn = socket_path(&nursery);
    match fs::remove_file(&newborn) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&newborn)?;
    fs::set_permissions(&newborn, fs::Permissions::from_mode(0o600))?;
    fs::rename(&newborn, path)?;
    fs::remove_dir(&nursery)?;
    Ok(listener)
}

async fn converse(stream: UnixStream, store: Arc<dyn Store>, cluster: Arc<dyn Cluster>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).take(LONGEST_LINE);
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line).await {
            Ok(bytes) if bytes > 0 && line.ends_with('\n') => {}
            _ => return,
        }
        lines.set_limit(LONGEST_LINE);
        let reply = match serde_json::from_str(&line) {
            Ok(request) => carry_out(request, store.clone(), &*cluster).await,
            Err(error) => Reply::Refused {
                detail: format!("not a request of this version: {error}"),
            },
        };
        let mut text = serde_json::to_string(&reply)
            .expect("a reply has only strings, numbers and truth values");
        text.push('\n');
        if write.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn carry_out(request: Request, store: Arc<dyn Store>, cluster: &dyn Cluster) -> Reply {
    let wanted = match request.wanted() {
        Err(refused) => return refused,
        Ok(Wanted::OfCluster(request)) => return cluster::carry_out(request, cluster).await,
        Ok(wanted) => wanted,
    };
    let changing = tokio::task::spawn_blocking(move || {
        let submit = |command| {
            let outcome = store.submit(command).blocking_recv();
            outcome.unwrap_or_else(|_| {
                let silence = "the store did not say what became of it";
                Err(Unavailable(silence.into()))
            })
        };
        change_apps(&*store.reader(), submit, &wanted)
    });
    let reply = changing.await.unwrap_or_else(|_| Reply::Refused {
        detail: "the node met a bug of ours; its log has more".to_owned(),
    });
    if let (Reply::Done, Request::CreateApp { app, .. } | Request::AddKey { app, .. }) =
        (&reply, &request)
    {
        let is_new = matches!(request, Request::CreateApp { .. });
        tracing::info!(app, is_new, "API key added");
    }
    reply
}
