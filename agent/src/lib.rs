//! fleet-agent: one small daemon on every container instance. It prepares the node, proves it
//! ready, drains it when it must go, and runs sidecars beside ECS.
//!
//! Only [`cli`] is of use from outside. Edges (clients, daemon, clock, journal, state) surround a
//! pure core (lifecycle::machine, the plans, the renderings, health), which takes the time as an
//! argument.

mod atomic;
pub mod cli;
mod clients;
mod clock;
mod console;
mod daemon;
mod ecs_config;
mod health;
#[cfg(test)]
mod hostile;
mod inventory;
mod journal;
mod leave;
mod lifecycle;
mod metadata_block;
mod moment;
mod paths;
mod probe;
mod revision;
mod sidecars;
#[cfg(feature = "simulation")]
pub mod simulation;
mod state;
mod status;
#[cfg(test)]
mod testing;

/// What `--version` and the attribute `fleet.agent` say.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
