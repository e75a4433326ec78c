//! `fleet-bootstrap`: brings an environment of an ECS fleet to what `fleet.toml` says.
//!
//! `spec` and `desired` are pure: a file goes in, the resources it asks for come out. Commands put
//! them together with the edges, and `output` alone prints.

pub mod cli;
pub mod commands;
pub mod desired;
pub mod exit;
pub mod output;
pub mod spec;
