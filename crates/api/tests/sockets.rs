//! The API on real sockets: callers that are slow, greedy or rude.

mod common;

use std::{future::pending, net::SocketAddr, time::Duration};

use campanile_api::{Config, serve};
use common::{Api, Mood, api_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

const PUSH: &str = r#"{"audience":{"all":true},"data":{}}"#;
/// Long enough for anything that ends at all.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    api: Api,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn server(config: Config) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = api_with(config.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let router = api.router.clone();
    let task = tokio::spawn(async move {
        serve(listener, router, &config, async {
            if stopped.await.is_err() {
                pending::<()>().await;
            }
        })
        .await;
    });
    Server {
        api,
        address,
        stop,
        task,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn push_head(&self, more: &str) -> String {
        let key = self.api.shop.reveal();
        format!(
            "POST /v1/apps/shop/pushes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{more}\r\n"
        )
    }
}

/// What arrives until the server closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an orderly end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes the connection");
    String::from_utf8(bytes).unwrap()
}

/// Reads one answer with a Content-Length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let read = async {
        loop {
            let mut buffer = [0; 1024];
            let n = stream.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer");
    text
}

#[tokio::test]
async fn several_pushes_share_a_connection() {
    let server = server(Config::default()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        let request = server.push_head(&format!("Content-Length: {}\r\n", PUSH.len())) + PUSH;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 202 "));
    }
    assert_eq!(server.api.store.accepted().len(), 3);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let server = server(Config {
        body_timeout_ms: 50,
        ..Config::default()
    })
    .await;
    let mut stream = server.connect().await;
    stream
        .write_all((server.push_head("Content-Length: 20\r\n") + "{").as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"body_timeout\""), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let server = server(Config {
        head_timeout_ms: 50,
        ..Config::default()
    })
    .await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nX: "] {
        let mut stream = server.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await;
    }
    // The same between two requests.
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_although_the_caller_goes_on_sending() {
    let server = server(Config::default()).await;
    let body = " ".repeat(512 * 1024);
    for framing in [
        format!("Content-Length: {}\r\n", body.len()),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut stream = server.connect().await;
        let mut request = server.push_head(&framing);
        if framing.starts_with('T') {
            request += &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        } else {
            request += &body;
        }
        let (mut from, mut to) = stream.split();
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(
            to.write_all(request.as_bytes()),
            timeout(PATIENCE, from.read_to_end(&mut answer))
        );
        let _ = read.expect("the server closes the connection");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"code\":\"body_too_large\""), "{answer}");
    }
}

#[tokio::test]
async fn whoever_asks_before_sending_too_much_is_refused_at_once() {
    let server = server(Config::default()).await;
    let mut stream = server.connect().await;
    let head = server.push_head("Content-Length: 10000000\r\nExpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_with_broken_framing_is_refused() {
    let server = server(Config::default()).await;
    let mut stream = server.connect().await;
    stream
        .write_all((server.push_head("Transfer-Encoding: chunked\r\n") + "zz\r\n").as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("\"code\":\"incomplete_body\""), "{answer}");
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let server = server(Config::default()).await;
    for rubbish in [
        "\x10\x0c\x00\x04MQTT\x04\x02\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(rubbish.as_bytes()).await.unwrap();
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_ends_the_connection() {
    let server = server(Config::default()).await;
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(
        to.write_all(head.as_bytes()),
        timeout(PATIENCE, from.read_to_end(&mut answer))
    );
    let _ = read.expect("the server closes the connection");
    // The answer may be lost to a reset, as the rest of the head is not read.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
}

#[tokio::test]
async fn connections_past_the_limit_wait_for_room() {
    let server = server(Config {
        max_connections: 1,
        ..Config::default()
    })
    .await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = server.connect().await;
    first.write_all(request).await.unwrap();
    read_answer(&mut first).await;

    let mut second = server.connect().await;
    second.write_all(request).await.unwrap();
    let mut byte = [0];
    assert!(
        timeout(Duration::from_millis(50), second.read(&mut byte))
            .await
            .is_err(),
        "there was room"
    );
    drop(first);
    assert!(read_answer(&mut second).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn stopping_answers_what_is_in_progress_and_closes_what_is_idle() {
    let server = server(Config::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    read_answer(&mut idle).await;
    let mut busy = server.connect().await;
    let request = server.push_head(&format!(
        "Content-Length: {}\r\nExpect: 100-continue\r\n",
        PUSH.len()
    ));
    busy.write_all(request.as_bytes()).await.unwrap();
    assert!(read_answer(&mut busy).await.starts_with("HTTP/1.1 100 "));

    server.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    busy.write_all(PUSH.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut busy).await.starts_with("HTTP/1.1 202 "));
    timeout(PATIENCE, server.task)
        .await
        .expect("serve returns")
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn stopping_does_not_wait_forever() {
    let server = server(Config {
        drain_timeout_ms: 50,
        ..Config::default()
    })
    .await;
    server.api.store.set_mood(Mood::Hangs);
    let mut stream = server.connect().await;
    let request = server.push_head(&format!(
        "Content-Length: {}\r\nExpect: 100-continue\r\n",
        PUSH.len()
    ));
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(&mut stream).await;
    stream.write_all(PUSH.as_bytes()).await.unwrap();
    server.stop.send(()).unwrap();
    timeout(PATIENCE, server.task)
        .await
        .expect("serve returns")
        .unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
}
