//! When to ping, and when to give up. MQTT 5.0 section 3.1.2.10.

/// The timers of one connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    response_timeout_ms: u64,
    /// 0 never pings.
    interval_ms: u64,
    last_sent_ms: u64,
    answer_due_ms: Option<u64>,
}

impl KeepAlive {
    pub(super) fn new(response_timeout_ms: u64) -> KeepAlive {
        KeepAlive {
            response_timeout_ms,
            interval_ms: 0,
            last_sent_ms: 0,
            answer_due_ms: None,
        }
    }

    /// CONNACK came; pings begin. The promise is to begin the next packet within `keep_alive` seconds, so that the ping leaves after three quarters of it.
    pub(super) fn start(&mut self, keep_alive: u16) {
        self.answer_due_ms = None;
        self.interval_ms = u64::from(keep_alive) * 750;
    }

    pub(super) fn stop(&mut self) {
        self.answer_due_ms = None;
        self.interval_ms = 0;
    }

    pub(super) fn on_sent(&mut self, now_ms: u64) {
        self.last_sent_ms = now_ms;
    }

    /// CONNECT or PINGREQ was sent.
    pub(super) fn expect_answer(&mut self, now_ms: u64) {
        self.answer_due_ms = Some(now_ms.saturating_add(self.response_timeout_ms));
    }

    pub(super) fn on_answer(&mut self) {
        self.answer_due_ms = None;
    }

    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        self.answer_due_ms.is_some_and(|due| now_ms >= due)
    }

    pub(super) fn wants_ping(&self, now_ms: u64) -> bool {
        self.answer_due_ms.is_none() && self.ping_due_ms().is_some_and(|due| now_ms >= due)
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.answer_due_ms.or_else(|| self.ping_due_ms())
    }

    fn ping_due_ms(&self) -> Option<u64> {
        (self.interval_ms > 0).then(|| self.last_sent_ms.saturating_add(self.interval_ms))
    }
}
