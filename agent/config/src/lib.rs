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
mod disk;
mod document;
mod drain;
pub mod ecs;
pub mod names;
mod node;
pub mod secrets;
mod sidecar;

pub use config::{
    AutoScalingConfig, Config, LAUNCH_TIMEOUT_DEFAULT, ParameterConfig, Settings, VERSION, render,
};
pub use disk::{Disk, DiskConfig};
pub use document::{Document, Problem, Problems};
pub use drain::{
    Drain, DrainConfig, Reaction, SIDECARS_MAX, SPOT_NOTICE, StandaloneConfig, StandalonePolicy,
    sidecars_seconds,
};
pub use node::{Node, NodeConfig};
pub use sidecar::{Flush, Network, Sidecar, SidecarConfig};
