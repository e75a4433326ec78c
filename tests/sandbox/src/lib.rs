//! An AWS on one machine: enough of it for the real `fleet-bootstrap`, real user data, real
//! cloud-init, systemd and Docker, and the real `fleet-agent` to run unchanged.

pub mod client;
pub mod machines;
pub mod moto;
pub mod node_protocol;
pub mod world;
