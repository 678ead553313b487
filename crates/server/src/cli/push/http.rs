//! A small client of the HTTP API: one connection per request.

use std::{io, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

/// How long an answer may take. A little more than a node allows itself by default.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 1 << 20;

/// The API of one node, with a key.
pub struct Api {
    runtime: Runtime,
    authority: String,
    address: String,
    base: String,
    key: String,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    status: StatusCode,
    body: String,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NoAnswer {
    /// The request may have reached the node.
    pub may_have_arrived: bool,
    message: String,
}

impl Response {
    /// Whether it is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Its status line.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its body.
    pub fn text(&self) -> &str {
        &self.body
    }
}

impl Api {
    /// The API at a URL such as `http://127.0.0.1:8080`.
    pub fn new(url: &str, key: &str) -> anyhow::Result<Api> {
        let uri: Uri = url.parse().with_context(|| {
            format!("--url {url:?} is not a URL, such as http://127.0.0.1:8080")
        })?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => bail!(
                "--url {url:?}: this command speaks plain HTTP only; go to the node directly, or use curl"
            ),
            _ => bail!("--url {url:?} is not a URL, such as http://127.0.0.1:8080"),
        }
        let authority = uri
            .authority()
            .with_context(|| format!("--url {url:?} names no host"))?;
        let host = authority.host();
        if !key.bytes().all(|b| b.is_ascii_graphic()) || key.is_empty() {
            bail!("the API key is empty or has characters that no key has");
        }
        Ok(Api {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            address: format!("{host}:{}", authority.port_u16().unwrap_or(80)),
            authority: authority.to_string(),
            base: uri.path().trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    /// Sends a JSON document.
    pub fn post(
        &self,
        path: &str,
        idempotency_key: &str,
        body: Vec<u8>,
    ) -> Result<Response, NoAnswer> {
        let request = self
            .request(Method::POST, path)
            .header("idempotency-key", idempotency_key);
        self.exchange(
            request.header(header::CONTENT_TYPE, "application/json"),
            body,
        )
    }

    /// Asks for a document.
    pub fn get(&self, path: &str) -> Result<Response, NoAnswer> {
        self.exchange(self.request(Method::GET, path), Vec::new())
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(
                header::USER_AGENT,
                concat!("campanile/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONNECTION, "close")
    }

    fn exchange(
        &self,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Response, NoAnswer> {
        let unsent = |message: String| NoAnswer {
            may_have_arrived: false,
            message,
        };
        let unclear = |message: String| NoAnswer {
            may_have_arrived: true,
            message: format!("http://{}: {message}", self.address),
        };
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unsent(format!("the request cannot be sent: {error}")))?;
        self.runtime.block_on(async {
            let stream = timeout(PATIENCE, TcpStream::connect(&self.address))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let stream = stream.map_err(|error| {
                unsent(format!(
                    "cannot connect to {}: {error}; does the node run?",
                    self.address
                ))
            })?;
            let conversation = async {
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                let driving = tokio::spawn(connection);
                let response = sender.send_request(request).await?;
                let status = response.status();
                let body = Limited::new(response.into_body(), LARGEST_ANSWER)
                    .collect()
                    .await;
                driving.abort();
                Ok::<_, hyper::Error>((status, body))
            };
            let (status, body) = match timeout(PATIENCE, conversation).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return Err(unclear(error.to_string())),
                Err(_) => return Err(unclear(format!("no answer within {PATIENCE:?}"))),
            };
            let body = body.map_err(|error| unclear(error.to_string()))?.to_bytes();
            Ok(Response {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers one request with these bytes; gives back what was asked.
    fn server(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&request).ends_with("\r\n\r\n{}") {
                let bytes = stream.read(&mut buffer).unwrap();
                assert!(bytes > 0);
                request.extend_from_slice(&buffer[..bytes]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, asked)
    }

    #[test]
    fn a_document_is_sent_and_the_answer_read() {
        let (url, asked) = server("HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\n\r\nfine");
        let response = Api::new(&url, "k")
            .unwrap()
            .post("/v1/x", "once", b"{}".to_vec())
            .unwrap();
        assert_eq!((response.is_success(), response.text()), (true, "fine"));
        let asked = asked.join().unwrap();
        for line in [
            "POST /base/v1/x HTTP/1.1",
            "authorization: Bearer k",
            "idempotency-key: once",
            "content-type: application/json",
        ] {
            assert!(asked.contains(line), "{line} is not in {asked}");
        }
    }

    #[test]
    fn whether_a_request_may_have_arrived_is_told() {
        let (url, asked) = server("");
        assert!(
            Api::new(&url, "k")
                .unwrap()
                .post("/", "once", b"{}".to_vec())
                .unwrap_err()
                .may_have_arrived
        );
        asked.join().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = Api::new(&format!("http://{gone}"), "k")
            .unwrap()
            .get("/")
            .unwrap_err();
        assert!(!error.may_have_arrived);
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot connect to {gone}: ")),
            "{error}"
        );
    }

    #[test]
    fn other_urls_and_keys_are_refused() {
        for (url, key) in [
            ("127.0.0.1:8080", "k"),
            ("https://x", "k"),
            ("nonsense url", "k"),
            ("http://x", ""),
            ("http://x", "a\nb"),
        ] {
            assert!(Api::new(url, key).is_err(), "{url} {key}");
        }
    }
}
