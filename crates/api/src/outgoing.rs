//! The port to receivers of webhooks and callbacks.

use std::{pin::Pin, sync::Arc, time::Duration};

use campanile_push::webhook::{
    Webhook,
    delivery::{Answer, Meaning},
    signature,
};
use tokio::time::Instant;

/// A request to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where it goes.
    pub url: String,
    /// Value of the header [`signature::HEADER`].
    pub signature: String,
    /// JSON.
    pub body: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// For the rules.
    pub answer: Answer,
    /// For people: `HTTP 503`, `connection refused`.
    pub detail: String,
}

/// Sends requests. Does not follow redirects, takes no longer than it is given, and refuses addresses that it may not send to.
pub trait Outgoing: Send + Sync {
    /// Sends one. Any failure is an answer.
    fn post(
        &self,
        post: Post,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Answered> + Send + '_>>;
}

impl Post {
    /// A signed request of now.
    pub(crate) fn signed(signer: &Webhook, url: String, body: String, now_ms: u64) -> Post {
        Post {
            url,
            signature: signer.sign(body.as_bytes(), now_ms),
            body,
        }
    }

    /// The name of the header with the signature.
    pub const SIGNATURE: &str = signature::HEADER;
}

/// Sends a request and measures how long that takes.
pub(crate) async fn send(
    outgoing: &Arc<dyn Outgoing>,
    post: Post,
    timeout: Duration,
) -> (Answered, Duration) {
    let started = Instant::now();
    let answered = outgoing.post(post, timeout).await;
    let elapsed = started.elapsed();
    let result = match answered.answer.meaning() {
        Meaning::Taken => "taken",
        Meaning::Again => "failed",
        Meaning::Never | Meaning::Gone => "refused",
    };
    metrics::counter!("campanile_webhook_requests_total", "result" => result).increment(1);
    metrics::histogram!("campanile_webhook_request_seconds").record(elapsed.as_secs_f64());
    (answered, elapsed)
}
