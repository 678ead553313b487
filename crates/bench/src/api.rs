//! The HTTP API of pushes, as far as scenarios need it: requests, and what devices get of them.

use std::io::Write;

use serde::Deserialize;

/// Where devices find what is pushed to them.
pub const INBOX_TOPIC: &str = "push/in";

/// What a push says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PushStamp {
    /// Drawn anew for every run.
    pub run: u32,
    /// Whom it is for; 0 if it is for all.
    pub device: usize,
    /// Counts from 0, per device.
    pub sequence: u64,
    /// When it was first sent, on the clock of the fleet.
    pub sent_ns: u64,
}

#[derive(Deserialize)]
struct Document {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    bench: (u32, usize, u64, u64),
}

impl PushStamp {
    /// Reads what came to a device.
    pub fn read(payload: &[u8]) -> Option<PushStamp> {
        let document: Document = serde_json::from_slice(payload).ok()?;
        let (run, device, sequence, sent_ns) = document.data.bench;
        Some(PushStamp {
            run,
            device,
            sequence,
            sent_ns,
        })
    }
}

/// Makes requests for pushes.
pub struct Caller {
    /// App that the devices belong to.
    pub app: String,
    /// API key of the app.
    pub key: String,
    /// `Host` of requests.
    pub host: String,
}

impl Caller {
    /// Appends a request for a push to the device with that client id, or to all. With an idempotency key it may be repeated.
    pub fn write(
        &self,
        client_id: Option<&str>,
        stamp: PushStamp,
        idempotency_key: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let audience = match client_id {
            Some(client_id) => format!(r#"{{"devices":["{client_id}"]}}"#),
            None => r#"{"all":true}"#.to_owned(),
        };
        let PushStamp {
            run,
            device,
            sequence,
            sent_ns,
        } = stamp;
        // A notification of ordinary size.
        let body = format!(
            r#"{{"audience":{audience},"notification":{{"title":"Your order is on its way","body":"It left the warehouse and will be with you tomorrow between nine and noon."}},"data":{{"bench":[{run},{device},{sequence},{sent_ns}]}}}}"#
        );
        let Caller { app, key, host } = self;
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "POST /v1/apps/{app}/pushes HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len(),
        );
        if let Some(key) = idempotency_key {
            let _ = write!(out, "idempotency-key: {key}\r\n");
        }
        let _ = write!(out, "\r\n{body}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_what_the_request_says() {
        let stamp = PushStamp {
            run: 7,
            device: 3,
            sequence: 9,
            sent_ns: 12,
        };
        let caller = Caller {
            app: "default".into(),
            key: "k".into(),
            host: "h".into(),
        };
        let mut request = Vec::new();
        caller.write(Some("d3"), stamp, Some("once"), &mut request);
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("idempotency-key: once"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(PushStamp::read(body.as_bytes()), Some(stamp));
    }
}
