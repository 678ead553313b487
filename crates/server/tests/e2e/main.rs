//! End to end: the real binary on free ports, third-party clients, real signals.
//!
//! [`harness`] starts nodes and drives clients. The modules beside it hold the tests, one theme each. `./test` installs the
//! clients.

mod access;
mod audiences;
mod away;
mod campaigns;
mod clients;
mod command_line;
mod crashes;
mod deletion;
mod harness;
mod identity;
mod lanes;
mod lifecycle;
mod openapi;
mod pushes;
mod quotas;
mod retained_and_wills;
mod rust_clients;
mod schedules;
mod sessions;
mod shared;
mod transport;
mod validation;
mod violations;
mod webhooks;
mod websocket;
