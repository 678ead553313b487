//! The port to authentication and authorisation.

use std::{net::SocketAddr, sync::Arc};

use campanile_mqtt::Reason;

use crate::ids::{AppId, Millis};

/// Decides who may connect, and what they may do.
pub trait Access: Send + Sync {
    /// Judges a CONNECT or AUTH. Called on a shard's thread: anything slow (a password hash) answers [`Verdict::Later`], and the
    /// driver asks again through [`Access::authenticate_slowly`] on a thread that may block.
    fn authenticate(&self, request: &AuthRequest) -> Verdict;

    /// Judges where blocking is allowed; never answers [`Verdict::Later`].
    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict;

    /// Whether the client may publish to a topic name.
    fn may_publish(&self, who: &Identity, client_id: &str, topic: &str) -> bool;

    /// Whether the client may subscribe to a topic filter (of a shared subscription: the filter behind the group).
    fn may_subscribe(&self, who: &Identity, client_id: &str, filter: &str) -> bool;
}

/// What a client shows of itself.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// The app of the listener that it came through.
    pub app: AppId,
    /// Name of that listener.
    pub listener: Arc<str>,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Client identifier; empty if the server is to assign one.
    pub client_id: Arc<str>,
    /// User name of the CONNECT.
    pub username: Option<Arc<str>>,
    /// Password of the CONNECT.
    pub password: Option<Arc<[u8]>>,
    /// Enhanced authentication (MQTT 5.0 section 4.12): method and data of the CONNECT or AUTH.
    pub method: Option<Arc<str>>,
    /// Authentication Data.
    pub data: Option<Arc<[u8]>>,
    /// What the last [`Verdict::Challenge`] of this exchange asked to be given back; `None` in its first step.
    pub state: Option<Arc<[u8]>>,
    /// The client is connected already, and this is a re-authentication.
    pub identity: Option<Identity>,
}

/// An answer to an [`AuthRequest`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Welcome. `data` goes out as Authentication Data with the CONNACK or the final AUTH.
    Allow {
        /// Who it is.
        identity: Identity,
        /// Authentication Data for the client.
        data: Option<Arc<[u8]>>,
    },
    /// One more step of enhanced authentication: AUTH 0x18 with this data.
    Challenge {
        /// Authentication Data for the client.
        data: Arc<[u8]>,
        /// Comes back as [`AuthRequest::state`].
        state: Arc<[u8]>,
    },
    /// Not welcome: the reason code for CONNACK or DISCONNECT. The cause is for the log, not for the client.
    Deny(Reason),
    /// Ask again where blocking is allowed.
    Later,
}

/// Who a client is, once judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name that was proven; `None` for anonymous clients and devices.
    pub username: Option<Arc<str>>,
    /// It has proven to be this device of its app, by credentials that the app's backend gave it.
    pub device: Option<Arc<DeviceIdentity>>,
}

/// A device that has proven to be itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// Its app.
    pub app: AppId,
    /// The user that it belonged to when it was judged.
    pub user: Option<Arc<str>>,
    /// The credentials name the user, and the device is to be bound to it.
    pub binds_user: bool,
    /// When the credentials end, and the connection with them; `None`: it may stay.
    pub expires_at: Option<Millis>,
}

/// Lets everybody in and do everything. For tests and the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Access for Open {
    fn authenticate(&self, request: &AuthRequest) -> Verdict {
        if request.method.is_some() {
            return Verdict::Deny(Reason::BadAuthenticationMethod);
        }
        Verdict::Allow {
            identity: Identity {
                username: request.username.clone(),
                device: None,
            },
            data: None,
        }
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        self.authenticate(request)
    }

    fn may_publish(&self, _: &Identity, _: &str, _: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _: &Identity, _: &str, _: &str) -> bool {
        true
    }
}
