//! What only the whole shows: the real programs, on real nodes, against the sandbox.
//!
//! Each test that needs nodes brings up a sandbox of its own name, so that tests neither share
//! state nor wait for each other's clean-up.

mod gate;
mod main_job;
mod refusals;
