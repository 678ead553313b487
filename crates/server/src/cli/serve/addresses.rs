//! `addresses.json` in the data directory: where the node listens, for scripts that let it choose its ports.

use std::{fs, path::PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::{
    config::{Settings, Transport},
    node::Node,
};

/// The file; it goes when the node stops in order.
pub struct File(PathBuf);

impl File {
    /// Writes it in one step: `{"mqtt": ["127.0.0.1:1883"], "ws": [..], "mqtts": [..], "wss": [..], "http": "127.0.0.1:8080"}`.
    pub fn write(
        data_dir: &std::path::Path,
        settings: &Settings,
        node: &Node,
    ) -> anyhow::Result<File> {
        let mut addresses = Map::new();
        for (listener, (_, address)) in settings.listeners.iter().zip(node.addresses()) {
            let kind = addresses
                .entry(scheme(listener.transport))
                .or_insert_with(|| json!([]));
            kind.as_array_mut()
                .expect("made so one line above")
                .push(json!(address.to_string()));
        }
        if let Some(address) = node.http_address() {
            addresses.insert("http".to_owned(), json!(address.to_string()));
        }
        let path = data_dir.join("addresses.json");
        let temporary = data_dir.join("addresses.json.new");
        fs::write(&temporary, Value::from(addresses).to_string())
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(File(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // Somebody else may have cleaned up.
    }
}

fn scheme(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "mqtt",
        Transport::Tls => "mqtts",
        Transport::Ws => "ws",
        Transport::Wss => "wss",
    }
}
