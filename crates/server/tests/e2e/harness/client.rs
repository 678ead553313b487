//! Third-party MQTT clients, each in a process of its own, driven by JSON lines (`tests/e2e/`).

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Lines, Node, installed, root};

/// A library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Eclipse Paho for Python.
    Paho,
    /// MQTT.js.
    MqttJs,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1, `MQIsdp`.
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// A message as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub qos: u64,
    pub retain: bool,
    pub dup: bool,
    /// User properties, in order.
    pub user: Vec<(String, String)>,
}

impl Message {
    /// The payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.payload)
            .unwrap_or_else(|fault| panic!("no JSON ({fault}): {self:?}"))
    }
}

/// What a publisher may add.
#[derive(Clone, Debug, Default)]
pub struct MessageOptions {
    pub qos: u8,
    pub retain: bool,
    /// Seconds; 5.0.
    pub expiry: Option<u32>,
    /// User properties; 5.0.
    pub user: Vec<(String, String)>,
}

impl From<u8> for MessageOptions {
    fn from(qos: u8) -> MessageOptions {
        MessageOptions {
            qos,
            ..MessageOptions::default()
        }
    }
}

/// What the server publishes if the client vanishes.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: &'static str,
    pub payload: &'static str,
    pub qos: u8,
    pub retain: bool,
    /// Seconds; 5.0.
    pub delay: Option<u32>,
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Session {
    request: Value,
}

impl Session {
    /// A session that ends with the connection.
    pub fn clean(client_id: &str) -> Session {
        Session {
            request: json!({"client_id": client_id, "clean": true}),
        }
    }

    /// A session that is kept, for an hour in 5.0.
    pub fn kept(client_id: &str) -> Session {
        Session {
            request: json!({"client_id": client_id, "clean": false, "expiry": 3600}),
        }
    }

    fn with(mut self, name: &str, value: Value) -> Session {
        self.request[name] = value;
        self
    }

    /// Session Expiry Interval, seconds; 5.0.
    pub fn expiry(self, seconds: u32) -> Session {
        self.with("expiry", json!(seconds))
    }

    /// User name and password.
    pub fn credentials(self, username: &str, password: &str) -> Session {
        self.with("username", json!(username))
            .with("password", json!(password))
    }

    /// User name and password are proven with SCRAM-SHA-256; 5.0 with MQTT.js.
    pub fn scram(self) -> Session {
        self.with("scram", json!(true))
    }

    /// With a will.
    pub fn will(self, will: &Will) -> Session {
        let Will {
            topic,
            payload,
            qos,
            retain,
            delay,
        } = will;
        let will = json!({"topic": topic, "payload": payload, "qos": qos, "retain": retain, "delay": delay});
        self.with("will", will)
    }

    /// Connects again whenever the connection breaks, and goes on where it was.
    pub fn reconnecting(self) -> Session {
        self.with("reconnect", json!(true))
    }
}

/// A client process.
pub struct Client {
    process: Child,
    input: ChildStdin,
    lines: Lines,
    errors: Lines,
    next_id: u64,
    /// What the server answered to CONNECT.
    pub connack: Value,
}

impl Client {
    /// Starts the library without connecting.
    pub fn start(node: &Node, kind: Kind, protocol: Protocol, transport: Transport) -> Client {
        let address = node.address(transport);
        let is_tls = matches!(transport, Transport::Tls | Transport::Wss);
        let settings = json!({
            "host": address.ip().to_string(),
            "port": address.port(),
            "version": protocol as u8,
            "transport": if matches!(transport, Transport::Ws | Transport::Wss) { "websockets" } else { "tcp" },
            "ca": is_tls.then(|| node.authority().ca.clone()),
        });
        let mut command = match kind {
            Kind::Paho => {
                let mut python = Command::new(installed(root().join(".local/venv/bin/python")));
                python.arg(root().join("tests/e2e/paho_client.py"));
                python
            }
            Kind::MqttJs => {
                let mut node = Command::new("node");
                node.env(
                    "CAMPANILE_NPM",
                    installed(root().join(".local/npm/node_modules/mqtt")).join("../.."),
                );
                node.arg(root().join("tests/e2e/mqttjs_client.mjs"));
                node
            }
        };
        let mut process = command
            .arg(settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("cannot start {command:?}: {fault}"));
        let input = process.stdin.take().expect("the input is piped");
        let lines = Lines::of(process.stdout.take().expect("the output is piped"));
        let errors = Lines::of(process.stderr.take().expect("the errors are piped"));
        Client {
            process,
            input,
            lines,
            errors,
            next_id: 1,
            connack: Value::Null,
        }
    }

    /// Starts the library and connects; the server must agree.
    pub fn connect(
        node: &Node,
        kind: Kind,
        protocol: Protocol,
        transport: Transport,
        session: Session,
    ) -> Client {
        let mut client = Client::start(node, kind, protocol, transport);
        client.connack = client.try_connect(session).expect("the client connects");
        assert_eq!(client.connack["code"], 0, "the server lets the client in");
        client
    }

    /// Paho with MQTT 5.0 over TCP: the client to take where the library is not the matter.
    pub fn v5(node: &Node, session: Session) -> Client {
        Client::connect(node, Kind::Paho, Protocol::V5, Transport::Tcp, session)
    }

    /// Connects; answers with the CONNACK, which may be a refusal.
    pub fn try_connect(&mut self, session: Session) -> Result<Value, String> {
        let id = self.ask("connect", session.request);
        self.answer(id)
    }

    /// Whether the server had the session.
    pub fn session_present(&self) -> bool {
        self.connack["session_present"]
            .as_bool()
            .expect("a connected client knows")
    }

    /// Subscribes; answers with the code granted.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u64 {
        self.subscribe_with(json!({"filter": filter, "qos": qos}))
    }

    /// Subscribes with options: `filter`, `qos`, `no_local`, `retain_handling`.
    pub fn subscribe_with(&mut self, request: Value) -> u64 {
        let id = self.ask("subscribe", request);
        let answer = self.answer(id).expect("the subscription is answered");
        answer["codes"][0]
            .as_u64()
            .expect("a subscription has a code")
    }

    /// Publishes and waits for the acknowledgement; answers with its reason code.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        options: impl Into<MessageOptions>,
    ) -> u64 {
        let id = self.publish_later(topic, payload, options);
        self.await_published(id)
    }

    /// Publishes; [`Client::await_published`] waits for the acknowledgement.
    pub fn publish_later(
        &mut self,
        topic: &str,
        payload: &str,
        options: impl Into<MessageOptions>,
    ) -> u64 {
        let MessageOptions {
            qos,
            retain,
            expiry,
            user,
        } = options.into();
        let user = (!user.is_empty()).then_some(user);
        let request = json!({
            "topic": topic, "payload": payload, "qos": qos, "retain": retain, "expiry": expiry, "user": user
        });
        self.ask("publish", request)
    }

    /// Waits until a message is acknowledged; answers with the reason code.
    pub fn await_published(&mut self, id: u64) -> u64 {
        let answer = self.answer(id).expect("the message is acknowledged");
        answer["code"].as_u64().unwrap_or(0)
    }

    /// The next message.
    pub fn next_message(&self) -> Message {
        let message = self.lines.take(message_of);
        message.unwrap_or_else(|| panic!("no message came; the client printed:\n{}", self.trace()))
    }

    /// The next message, if one comes within that time.
    pub fn message_within(&self, time: Duration) -> Option<Message> {
        self.lines
            .take_until(Instant::now() + time, &mut message_of)
    }

    /// Waits for the end of the connection; answers with the server's reason code, if it gave one.
    pub fn await_disconnected(&self) -> Option<u64> {
        let event = self.lines.take(|line| event_of(line, "disconnected"));
        let event = event.unwrap_or_else(|| {
            panic!(
                "the connection does not end; the client printed:\n{}",
                self.trace()
            )
        });
        event["code"]
            .as_u64()
            .filter(|_| event["by_server"] == true)
    }

    /// Waits until the client has connected (again); answers with the CONNACK. The first connection counts.
    pub fn await_connected(&self) -> Value {
        let event = self.lines.take(|line| event_of(line, "connected"));
        event
            .unwrap_or_else(|| panic!("the client does not connect; it printed:\n{}", self.trace()))
    }

    /// Takes leave properly, and ends.
    pub fn disconnect(mut self) {
        let id = self.ask("disconnect", json!({}));
        self.answer(id).expect("the client disconnects");
    }

    /// Ends the process with its connection open, as a device that loses power. (Its kernel closes the socket.)
    pub fn vanish(mut self) {
        self.process.kill().expect("the client runs");
        self.process.wait().expect("the client ends");
    }

    fn ask(&mut self, action: &str, mut request: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        request["do"] = json!(action);
        request["id"] = json!(id);
        let sent = writeln!(self.input, "{request}");
        sent.unwrap_or_else(|fault| {
            panic!("the client ended ({fault}); it printed:\n{}", self.trace())
        });
        id
    }

    fn answer(&self, id: u64) -> Result<Value, String> {
        let answer = self.lines.take(|line| {
            let document: Value = serde_json::from_str(line).ok()?;
            (document["id"] == id).then_some(document)
        });
        let mut answer = answer.unwrap_or_else(|| {
            panic!(
                "request {id} got no answer; the client printed:\n{}",
                self.trace()
            )
        });
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    fn trace(&self) -> String {
        [self.lines.all(), self.errors.all()].concat().join("\n")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn event_of(line: &str, name: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_str(line).ok()?;
    document.get_mut(name).map(Value::take)
}

fn message_of(line: &str) -> Option<Message> {
    let message = event_of(line, "message")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = message["user"].as_array().into_iter().flatten();
    Some(Message {
        topic: text(&message["topic"]),
        payload: text(&message["payload"]),
        qos: message["qos"]
            .as_u64()
            .expect("a message has a quality of service"),
        retain: message["retain"] == true,
        dup: message["dup"] == true,
        user: pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
    })
}
