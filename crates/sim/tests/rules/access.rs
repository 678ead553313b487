//! An [`Access`] for tests: some names are refused, and there is a method with a challenge.

use std::sync::Arc;

use campanile_broker::access::{Access, AuthRequest, Identity, Verdict};
use campanile_mqtt::Reason;
use campanile_sim::{node::NodeConfig, pair::Pair};

/// User names `wrong`, `banned` and `slow` mean what they say; topics and filters that begin with `secret` are refused.
/// The method `riddle` asks "who?" and wants "me". A re-authentication asks "still?" and wants "yes".
pub struct Gate;

/// A node with this access.
pub fn guarded() -> Pair {
    Pair::with(NodeConfig {
        access: Arc::new(Gate),
        ..NodeConfig::default()
    })
}

impl Gate {
    fn riddle(request: &AuthRequest) -> Verdict {
        let again = request.identity.is_some();
        let (question, answer) = if again {
            ("still?", "yes")
        } else {
            ("who?", "me")
        };
        match (request.state.as_deref(), request.data.as_deref()) {
            (None, Some(b"forbid")) => Verdict::Deny(Reason::NotAuthorized),
            (None, _) => Verdict::Challenge {
                data: question.as_bytes().into(),
                state: b"asked"[..].into(),
            },
            (Some(b"asked"), Some(data)) if data == answer.as_bytes() => Verdict::Allow {
                identity: Identity::default(),
                data: Some(b"welcome"[..].into()),
            },
            _ => Verdict::Deny(Reason::NotAuthorized),
        }
    }
}

impl Access for Gate {
    fn authenticate(&self, request: &AuthRequest) -> Verdict {
        match (request.method.as_deref(), request.username.as_deref()) {
            (_, Some("slow")) => Verdict::Later,
            _ => self.authenticate_slowly(request),
        }
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        match (request.method.as_deref(), request.username.as_deref()) {
            (Some("riddle"), _) => Gate::riddle(request),
            (Some(_), _) => Verdict::Deny(Reason::BadAuthenticationMethod),
            (None, Some("wrong")) => Verdict::Deny(Reason::BadUserNameOrPassword),
            (None, Some("banned")) => Verdict::Deny(Reason::Banned),
            (None, _) => Verdict::Allow {
                identity: Identity::default(),
                data: None,
            },
        }
    }

    fn may_publish(&self, _: &Identity, _: &str, topic: &str) -> bool {
        !topic.starts_with("secret")
    }

    fn may_subscribe(&self, _: &Identity, _: &str, filter: &str) -> bool {
        !filter.starts_with("secret")
    }
}
