//! What lies between a socket and MQTT: TLS, WebSocket, or both.

use super::{
    connection::End,
    figures::DriverFigures,
    listener::Listening,
    tls::Tls,
    websocket::{CloseCode, Fault, WebSocket, binary_header},
};

/// The layers of one connection, at least one.
#[derive(Debug)]
pub struct Layers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
}

impl Layers {
    /// Layers of a connection that came in through a listener; `None` for plain TCP.
    pub fn of(listener: &Listening) -> Result<Option<Layers>, rustls::Error> {
        let tls = listener
            .tls
            .as_ref()
            .map(|tls| Tls::new(tls.config().clone()));
        let tls = tls.transpose()?;
        let websocket = listener.websocket_path.clone().map(WebSocket::new);
        let layered = tls.is_some() || websocket.is_some();
        Ok(layered.then_some(Layers { tls, websocket }))
    }

    /// Whether output is encrypted, and so copied in any case.
    pub fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes all of `raw`: what is for the shard to `data`, what the layers answer to `replies`.
    pub fn decode(
        &mut self,
        raw: &[u8],
        data: &mut Vec<u8>,
        decrypted: &mut Vec<u8>,
        replies: &mut Vec<u8>,
        figures: &mut DriverFigures,
    ) -> Result<(), End> {
        let Some(tls) = &mut self.tls else {
            let websocket = self.websocket.as_mut().expect("there is a layer");
            return decode_websocket(websocket, raw, data, replies, figures);
        };
        let was_handshaking = tls.is_handshaking();
        let Some(websocket) = &mut self.websocket else {
            let open = tls.decode(raw, data, replies);
            return after_tls(open, tls, was_handshaking, figures);
        };
        decrypted.clear();
        let open = tls.decode(raw, decrypted, replies);
        let mut frames = Vec::new();
        let result = decode_websocket(websocket, decrypted, data, &mut frames, figures);
        if !frames.is_empty() {
            tls.encode(std::iter::once(frames.as_slice()), replies);
        }
        after_tls(open, tls, was_handshaking, figures).and(result)
    }

    /// Whether data may be sent: a WebSocket must be open.
    pub fn takes_data(&self) -> bool {
        self.websocket.as_ref().is_none_or(WebSocket::is_open)
    }

    /// Puts one turn's output into records. For TLS only.
    pub fn encode(&mut self, plain: &[u8], records: &mut Vec<u8>) {
        let tls = self.tls.as_mut().expect("the caller has checked");
        match &self.websocket {
            None => tls.encode(std::iter::once(plain), records),
            Some(_) => {
                let (header, header_bytes) = binary_header(plain.len());
                tls.encode([&header[..header_bytes], plain].into_iter(), records);
            }
        }
    }

    /// Says goodbye in every layer.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        let mut frames = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(CloseCode::Normal, &mut frames);
        }
        match &mut self.tls {
            None => out.append(&mut frames),
            Some(tls) => {
                if !frames.is_empty() {
                    tls.encode(std::iter::once(frames.as_slice()), out);
                }
                tls.close(out);
            }
        }
    }
}

fn decode_websocket(
    websocket: &mut WebSocket,
    input: &[u8],
    data: &mut Vec<u8>,
    replies: &mut Vec<u8>,
    figures: &mut DriverFigures,
) -> Result<(), End> {
    let was_open = websocket.is_open();
    let result = websocket.decode(input, data, replies);
    if !was_open && websocket.is_open() {
        figures.websocket_upgrades += 1;
    }
    result.map_err(|fault| {
        if fault != Fault::Closed {
            figures.websocket_errors += 1;
        }
        End::Layer(format!("websocket: {fault}").into())
    })
}

fn after_tls(
    open: Result<bool, rustls::Error>,
    tls: &Tls,
    was_handshaking: bool,
    figures: &mut DriverFigures,
) -> Result<(), End> {
    if was_handshaking && !tls.is_handshaking() {
        figures.tls_handshakes += 1;
    }
    match open {
        Ok(true) => Ok(()),
        Ok(false) => Err(End::Layer("tls: closed by the peer".into())),
        Err(error) => {
            figures.tls_errors += 1;
            Err(End::Layer(format!("tls: {error}").into()))
        }
    }
}
