//! What only the whole shows: the real programs, on real nodes, against the sandbox.
//!
//! Each test that needs nodes brings up a sandbox of its own name, so that tests neither share
//! state nor wait for each other's clean-up.

#![allow(clippy::disallowed_methods, reason = "the programs are what is tested")]

mod adopt;
mod convergence;
mod gate;
mod install;
mod least_privilege;
mod leaving;
mod main_job;
mod many_groups;
mod no_docker;
mod packer;
mod refusals;
mod release;
mod roll;
mod services;
mod step_scaling;
mod upgrade;
mod user_data;
