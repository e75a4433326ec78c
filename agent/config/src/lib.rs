//! The contract between `fleet-bootstrap`, which writes `agent.toml` into a launch template's user
//! data, and `fleet-agent`, which reads it on the node.
//!
//! [`Config`] is the wire form, exactly what stands in the file; [`Settings`] is what is left once
//! every rule has been checked. Reading never stops at the first error: [`Document`] collects all
//! of them, each with its line and key path.
//!
//! Nothing here reads a clock, a file or the network.

#![warn(missing_docs)]

mod config;
mod container;
mod disk;
mod document;
mod drain;
mod ecr;
pub mod ecs;
mod health;
mod live;
pub mod names;
mod node;
mod order;
pub mod secrets;
mod sidecar;

pub use config::{
    AutoScalingConfig, Config, DRAIN_TIMEOUT_DEFAULT, LAUNCH_TIMEOUT_DEFAULT, ParameterConfig,
    Settings, VERSION, render,
};
pub use container::{Container, HealthCheck, HealthCheckConfig, LogConfig, Port, Protocol};
pub use disk::{Disk, DiskConfig};
pub use document::{Document, Problem, Problems};
pub use drain::{
    Drain, DrainConfig, Reaction, SIDECARS_MAX, SPOT_NOTICE, StandaloneConfig, StandalonePolicy,
    sidecars_seconds,
};
pub use ecr::EcrImage;
pub use health::{Health, HealthConfig, Replacement};
pub use live::{Applied, LIVE_MAX, Live, REVISION_MAX};
pub use node::{Node, NodeConfig};
pub use order::RESERVED_PORTS;
pub use sidecar::{Credentials, Flush, Network, Sidecar, SidecarConfig};
