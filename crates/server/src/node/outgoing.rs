//! Requests to receivers of webhooks and callbacks, over connections that are kept open for the next.
//!
//! Whoever may make a webhook chooses where this node connects to. Therefore, unless a setting allows it, no connection is made to this machine or into a private network: the
//! addresses that a name leads to are judged when the connection is made, and those are the ones that it is made to.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use campanile_api::{Answered, Outgoing, Post};
use campanile_push::webhook::delivery::Answer;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tower_service::Service;

/// Connections that wait for the next request to the same receiver.
const IDLE_PER_HOST: usize = 8;
/// How long they wait.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read, so that its connection can be used again. What it says is of no interest.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Sends requests.
pub(super) struct Receivers {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    allow_private: bool,
}

impl Receivers {
    /// Needs a runtime only when it sends.
    pub(super) fn new(allow_private: bool, connect_timeout: Duration) -> Receivers {
        let mut http = HttpConnector::new_with_resolver(Resolver { allow_private });
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let https = HttpsConnectorBuilder::new();
        let https = match https.with_provider_and_native_roots(provider) {
            Ok(https) => https,
            Err(error) => {
                tracing::warn!(%error, "this machine trusts no authority, so that no https receiver can be reached");
                let empty = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
                HttpsConnectorBuilder::new().with_tls_config(empty.with_no_client_auth())
            }
        };
        let https = https.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(https);
        Receivers {
            client,
            allow_private,
        }
    }

    async fn try_to_post(&self, post: Post) -> Result<Response<Incoming>, String> {
        let uri: Uri = post
            .url
            .parse()
            .map_err(|error| format!("not an address: {error}"))?;
        // A name is judged by the resolver, an address meets none.
        let host = uri.host().unwrap_or_default();
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if let Some(address) = literal
            && !self.allow_private
            && !is_public(address)
        {
            return Err(not_allowed(host));
        }
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("Campanile/", env!("CARGO_PKG_VERSION")))
            .header(Post::SIGNATURE, post.signature)
            .body(Full::new(Bytes::from(post.body)))
            .map_err(|error| error.to_string())?;
        self.client
            .request(request)
            .await
            .map_err(|error| innermost(&error))
    }
}

impl Outgoing for Receivers {
    fn post(
        &self,
        post: Post,
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Answered> + Send + '_>> {
        Box::pin(async move {
            match timeout(within, self.try_to_post(post)).await {
                Ok(Ok(response)) => {
                    let answered = answered(&response);
                    let rest = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
                    // Read, or the connection is closed.
                    let _ = timeout(within, rest).await;
                    answered
                }
                Ok(Err(detail)) => Answered {
                    answer: Answer::Unreachable,
                    detail,
                },
                Err(_) => Answered {
                    answer: Answer::Timeout,
                    detail: format!("no answer within {} ms", within.as_millis()),
                },
            }
        })
    }
}

fn answered(response: &Response<Incoming>) -> Answered {
    let code = response.status().as_u16();
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok());
    Answered {
        answer: Answer::Status {
            code,
            retry_after_seconds: seconds,
        },
        detail: format!("HTTP {code}"),
    }
}

/// What went wrong in the end, in words that fit one line.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn not_allowed(host: &str) -> String {
    format!(
        "{host} is on this machine or in a private network, where webhooks may go only if webhooks.allow_private_targets is set"
    )
}

/// Resolves names to addresses that may be connected to.
#[derive(Clone)]
struct Resolver {
    allow_private: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host: Arc<str> = name.as_str().into();
            let found = tokio::net::lookup_host((&*host, 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            match allowed.is_empty() {
                true => Err(std::io::Error::other(not_allowed(&host))),
                false => Ok(allowed.into_iter()),
            }
        })
    }
}

/// Whether an address is one of the open network, which anybody could connect to.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_for_protocols = (first, second, third) == (192, 0, 0);
    let is_for_benchmarks = first == 198 && (second & 0xfe) == 18;
    let is_reserved = first == 0 || first >= 240;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || is_for_protocols
        || is_for_benchmarks
        || is_reserved)
}

/// The address of version 4 that one of version 6 leads to: mapped, compatible, through NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let last = || {
        let [high, low] = [parts[6], parts[7]].map(u16::to_be_bytes);
        Ipv4Addr::new(high[0], high[1], low[0], low[1])
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(last()),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(last()),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last()),
        [0x2002, high, low, ..] => {
            let [high, low] = [high, low].map(u16::to_be_bytes);
            Some(Ipv4Addr::new(high[0], high[1], low[0], low[1]))
        }
        _ => None,
    }
}

/// Global unicast is `2000::/3`; of that, documentation and special purposes are not.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let is_global = parts[0] & 0xe000 == 0x2000;
    let is_documentation = parts[0] == 0x2001 && parts[1] == 0xdb8 || parts[0] == 0x3fff;
    let is_for_protocols = parts[0] == 0x2001 && parts[1] < 0x200;
    is_global && !is_documentation && !is_for_protocols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_or_its_network_reaches_is_not_public() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "172.32.0.1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for not in [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "2001:db8::1",
        ] {
            assert!(!is_public(not.parse().unwrap()), "{not}");
        }
    }

    #[tokio::test]
    async fn private_targets_are_refused_by_name_and_by_address() {
        let receivers = Receivers::new(false, Duration::from_secs(1));
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://localhost:1/",
        ] {
            let post = Post {
                url: url.into(),
                signature: "t=1".into(),
                body: "{}".into(),
            };
            let answered = receivers.post(post, Duration::from_secs(5)).await;
            assert_eq!(answered.answer, Answer::Unreachable, "{url}");
            assert!(answered.detail.contains("private network"), "{answered:?}");
        }
    }
}
