//! An AWS on one machine: enough of it for the real `fleet-bootstrap`, real user data, real
//! cloud-init, systemd and Docker, and the real `fleet-agent` to run unchanged.

pub mod api_error;
pub mod autoscaling;
pub mod ecs;
mod ids;
pub mod machines;
pub mod node_protocol;
mod paging;
