//! `fleet-bootstrap`: brings an environment of an ECS fleet to what `fleet.toml` says.
//!
//! `spec` and `desired` are pure: a file goes in, the resources it asks for come out. `inventory`
//! and `plan` are pure as well: what exists goes in, what to do comes out. `collect`, `execute`,
//! `apply`, `watch` and `cloud` are the edges that meet AWS. Commands put them together, and
//! `output` alone prints.

mod apply;
pub mod cli;
mod cloud;
mod collect;
pub mod commands;
pub mod desired;
mod drain;
mod execute;
pub mod exit;
mod inventory;
mod nodes;
pub mod output;
mod plan;
mod plan_file;
mod preflight;
mod progress;
mod roll;
mod session;
pub mod spec;
mod watch;
