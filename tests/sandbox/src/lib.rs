//! An AWS on one machine: enough of it for the real `fleet-bootstrap`, real user data, real
//! cloud-init, systemd and Docker, and the real `fleet-agent` to run unchanged.

pub mod access;
mod admin;
pub mod api_error;
pub mod autoscaling;
mod calls;
pub mod client;
pub mod cloudwatch;
pub mod ecs;
mod faults;
mod gateway;
mod grants;
mod ids;
mod inventory;
pub mod machines;
pub mod moto;
pub mod node_protocol;
pub mod notices;
mod paging;
pub mod paper;
pub mod policy;
pub mod world;
