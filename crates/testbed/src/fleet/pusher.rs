//! An app server on a thread of its own: it pushes, and repeats with the same idempotency key until it knows.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Shared,
    account::{ReceiverId, StreamId},
};
use crate::{http, node::KEY, rng::Rng};

/// How long an answer may take before the request is repeated elsewhere.
const ANSWER: Duration = Duration::from_secs(4);
/// The pause before a repetition.
const RETRY: Duration = Duration::from_millis(100);

/// Whom an app server pushes to.
#[derive(Clone, Debug)]
pub enum Aim {
    /// Everybody.
    All,
    /// One device or several, drawn anew each time.
    Some(Vec<(String, ReceiverId)>),
}

/// An app server.
pub struct Pusher {
    /// Its name, in idempotency keys.
    pub name: String,
    /// Its pushes.
    pub stream: StreamId,
    /// Whom to.
    pub aim: Aim,
    /// Pushes a second.
    pub rate: u32,
    /// The rest of the fleet.
    pub shared: Arc<Shared>,
    /// What it draws by.
    pub rng: Rng,
}

impl Pusher {
    /// Pushes until the fleet stops.
    pub fn run(mut self) {
        let mut next = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if !self.shared.sending.load(Ordering::Relaxed) || now < next {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            next = now + Duration::from_secs(1) / self.rate.max(1);
            self.shared.pushing.fetch_add(1, Ordering::Relaxed);
            self.push();
            self.shared.pushing.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn push(&mut self) {
        let (audience, only) = self.draw();
        let number = self.shared.account.offer(self.stream, only);
        let body = json!({
            "audience": audience,
            "notification": {"title": "Hello"},
            "data": {"stamp": format!("{}:{number}", self.stream.0)},
        });
        let head = [
            "POST /v1/apps/default/pushes".to_owned(),
            format!("Authorization: Bearer {KEY}"),
            "Content-Type: application/json".to_owned(),
            format!("Idempotency-Key: {}-{number}", self.name),
        ];
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let body = body.to_string();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let place = &self.shared.places[self.rng.below(self.shared.places.len())];
            match http::request(place.http, &head, &body, ANSWER) {
                Ok(answer) if answer.status == 202 || answer.status == 200 => {
                    return self.shared.account.accept(self.stream, number);
                }
                // Told to come again.
                Ok(answer) if answer.status == 503 || answer.status == 429 => {
                    self.shared.account.refuse();
                }
                Ok(answer) => {
                    let text = format!("{}:{number} was answered {answer:?}", self.name);
                    return self.shared.account.violate(text);
                }
                Err(_) => {}
            }
            thread::sleep(RETRY);
        }
    }

    fn draw(&mut self) -> (Value, Option<Vec<ReceiverId>>) {
        let Aim::Some(devices) = &self.aim else {
            return (json!({"all": true}), None);
        };
        let count = match self.rng.below(3) {
            0 => 1 + self.rng.below(devices.len()),
            _ => 1,
        };
        let first = self.rng.below(devices.len());
        let drawn = devices.iter().cycle().skip(first).take(count);
        let (names, receivers): (Vec<_>, Vec<_>) = drawn.cloned().unzip();
        (json!({"devices": names}), Some(receivers))
    }
}
