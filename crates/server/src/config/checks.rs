//! Rules that span keys.

use super::{ClientAuth, Listener, Loaded, Problem, Transport, cluster_checks};

/// Most listeners of a node: each shard watches every one.
const MOST_LISTENERS: usize = 64;

/// Adds what is wrong to `problems`, and what is odd to the warnings.
pub(super) fn check(loaded: &mut Loaded, problems: &mut Vec<Problem>) {
    check_node(loaded, problems);
    check_listeners(loaded, problems);
    check_limits(loaded, problems);
    cluster_checks::check(loaded, problems);
    let warnings = warnings(loaded);
    loaded.warnings = warnings;
}

fn check_node(loaded: &Loaded, problems: &mut Vec<Problem>) {
    if loaded.settings.node.data_dir.as_os_str().is_empty() {
        problems.push(loaded.problem(
            "node.data_dir",
            "a directory is needed, such as \"/var/lib/campanile\"",
        ));
    }
}

fn check_listeners(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let listeners = &loaded.settings.listeners;
    if listeners.len() > MOST_LISTENERS {
        problems.push(loaded.problem(
            "listeners",
            format!("{} are too many: at most {MOST_LISTENERS}", listeners.len()),
        ));
        return;
    }
    for (index, listener) in listeners.iter().enumerate() {
        let mut wrong = |key: &str, message: String| {
            let path = format!("listeners[{index}].{key}");
            let mut problem = loaded.problem(&path, message);
            if problem.origin == super::Origin::Default {
                problem.origin = loaded.origin(&format!("listeners[{index}]"));
            }
            problems.push(problem);
        };
        let earlier = &listeners[..index];
        if earlier.iter().any(|other| other.name == listener.name) {
            wrong(
                "name",
                format!(
                    "{:?} is the name of another listener: give each its own",
                    listener.name
                ),
            );
        }
        let clashes = |other: &super::Listener| {
            other.address == listener.address && listener.address.port() != 0
        };
        if let Some(other) = earlier.iter().find(|other| clashes(other)) {
            wrong(
                "address",
                format!(
                    "{} is that of the listener {:?} already",
                    listener.address, other.name
                ),
            );
        }
        if loaded.settings.http.address == listener.address && listener.address.port() != 0 {
            wrong(
                "address",
                format!("{} is that of http.address already", listener.address),
            );
        }
        if listener.auth.is_empty() {
            let message = "nobody could come in: name at least one way, such as \"token\"";
            wrong("auth", message.to_owned());
        }
        check_tls(listener, &mut wrong);
    }
}

fn check_tls(listener: &super::Listener, wrong: &mut impl FnMut(&str, String)) {
    let transport = listener.transport.name();
    let files = [
        ("tls_certificate", &listener.tls_certificate),
        ("tls_key", &listener.tls_key),
    ];
    if listener.transport.is_secure() {
        for (key, file) in files {
            if file.is_none() {
                wrong(
                    key,
                    format!("the transport \"{transport}\" needs it: name a PEM file"),
                );
            }
        }
        match (listener.tls_client_auth, &listener.tls_client_ca) {
            (ClientAuth::Optional | ClientAuth::Required, None) => {
                wrong(
                    "tls_client_ca",
                    "checking clients' certificates needs their authorities: name a PEM file"
                        .to_owned(),
                );
            }
            (ClientAuth::None, Some(_)) => {
                wrong("tls_client_ca", "it has no effect while tls_client_auth is \"none\": set that to \"optional\" or \"required\"".to_owned());
            }
            _ => {}
        }
        return;
    }
    let plain = [
        files[0],
        files[1],
        ("tls_client_ca", &listener.tls_client_ca),
    ];
    let secure = if listener.transport == Transport::Ws {
        "wss"
    } else {
        "tls"
    };
    for (key, _) in plain.into_iter().filter(|(_, file)| file.is_some()) {
        wrong(
            key,
            format!(
                "the transport \"{transport}\" is not encrypted and ignores it: did you mean \"{secure}\"?"
            ),
        );
    }
    if listener.tls_client_auth != ClientAuth::None {
        wrong(
            "tls_client_auth",
            format!(
                "the transport \"{transport}\" is not encrypted and ignores it: did you mean \"{secure}\"?"
            ),
        );
    }
}

fn check_limits(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let limits = &loaded.settings.limits;
    if limits.max_payload_bytes > limits.max_packet_bytes {
        problems.push(loaded.problem(
            "limits.max_payload_bytes",
            "a payload cannot be larger than its packet: raise max_packet_bytes or lower this",
        ));
    }
    if limits.v3_session_expiry_seconds > limits.max_session_expiry_seconds {
        problems.push(loaded.problem(
            "limits.v3_session_expiry",
            "it is longer than max_session_expiry, which would cut it: raise that or lower this",
        ));
    }
    for (key, rule) in loaded.settings.http.api.mistakes() {
        let path = format!("http.{}", key.trim_end_matches("_ms"));
        if !problems.iter().any(|problem| problem.key == path) {
            problems.push(loaded.problem(&path, rule));
        }
    }
}

fn warnings(loaded: &Loaded) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut warnings = Vec::new();
    let take_devices = settings.listeners.iter().any(Listener::takes_devices);
    if settings.clients.password_file.is_none()
        && !settings.clients.allow_anonymous
        && !take_devices
    {
        let message = "no device can connect: set clients.password_file (\"campanile passwd\" makes one), or clients.allow_anonymous = true, or let a listener's auth have \"token\" or \"jwt\"";
        warnings.push(loaded.problem("clients.password_file", message));
    }
    if settings.listeners.is_empty() {
        warnings.push(loaded.problem("listeners", "no device can connect: there is no listener"));
    }
    if settings.clients.allow_anonymous
        && settings.clients.acl_file.is_none()
        && settings
            .listeners
            .iter()
            .any(|l| !l.address.ip().is_loopback())
    {
        let message = "anybody who reaches a listener may publish and subscribe everywhere: set clients.acl_file, or clients.allow_anonymous = false";
        warnings.push(loaded.problem("clients.allow_anonymous", message));
    }
    cluster_checks::warn(loaded, &mut warnings);
    warnings
}
