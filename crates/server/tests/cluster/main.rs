//! Clusters of real nodes over real servers: what one node promises holds across all, whatever fails.
//!
//! [`setup`] starts them. The modules beside it hold the tests, one theme each. `./test` installs the servers.

mod campaigns;
mod crashes;
mod crossing;
mod deletion;
mod identity;
mod operations;
mod outages;
mod partitions;
mod resources;
mod schedules;
mod setup;
mod tls;
mod validation;
mod webhooks;
