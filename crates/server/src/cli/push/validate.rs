//! `campanile push --validate`: what would become of the push.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Validation {
    audience: Audience,
    arrival: Arrival,
}

#[derive(Deserialize)]
struct Audience {
    targeted: u64,
    #[serde(default)]
    margin: Option<u64>,
    connected: u64,
    away: u64,
    #[serde(default)]
    silent_nodes: Vec<String>,
}

#[derive(Deserialize)]
struct Arrival {
    first_at: Option<String>,
    last_at: Option<String>,
}

/// In a sentence or three.
impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Audience {
            targeted,
            margin,
            connected,
            away,
            silent_nodes,
        } = &self.audience;
        let devices = super::devices(*targeted);
        match margin {
            None => write!(f, "valid, for {devices}")?,
            Some(margin) => write!(f, "valid, for about {devices} (give or take {margin})")?,
        }
        write!(f, ": {connected} connected, {away} away")?;
        if !silent_nodes.is_empty() {
            let nodes = silent_nodes.join(", ");
            write!(
                f,
                ", without those connected to {nodes}, which did not answer"
            )?;
        }
        match (&self.arrival.first_at, &self.arrival.last_at) {
            (Some(first), Some(last)) if first == last => write!(f, "; their turn is at {first}"),
            (Some(first), Some(last)) => write!(f, "; their turns are from {first} to {last}"),
            _ => write!(f, "; none would have a turn"),
        }
    }
}
