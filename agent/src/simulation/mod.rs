//! The lifecycle in virtual time: the real machine and the real driver on twenty nodes, against the
//! sandbox's models of Auto Scaling and ECS, with every remote late, failing, or silent at times, and
//! agents and machines that stop in the middle of anything. One seed is one story, told the same way
//! each time.
//!
//! # Guarantees
//! - [`run`] depends on its arguments only: the time is tokio's paused one, chance comes from the
//!   seed, and nothing is read from or written to this machine.
//! - What must hold ([`Invariant`]) is judged by what the simulated world itself did and saw; the
//!   machine under test is not asked.
//!
//! # Assumptions
//! - A node's clock keeps running over a reboot; a saved state holds moments of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a simulated world that is not as built must end the test; its numbers are small"
)]

mod account;
mod agents;
mod checks;
mod clients;
mod draw;
mod fleet;
mod flips;
mod node;
mod replacement;
mod run;
mod scenario;
mod stage;
mod trace;
mod world;

pub use checks::{Invariant, Violation};
pub use fleet::{FleetOptions, FleetReport, Load, fleet};
pub use flips::{Flip, Flips, flips, idle_hour};
pub use replacement::{Illness, Replaced, replacement};
pub use run::{Options, Report, run};

/// Seeds that once showed a fault, with what they showed.
pub const REGRESSIONS: &str = include_str!("regressions.txt");
