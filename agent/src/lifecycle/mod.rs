//! A node's life, from its first boot to its last lifecycle action. [`machine`] decides and is
//! pure; [`driver`] does what it says and tells it what came of it.

pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod machine;
mod perform;
mod schedule;
#[cfg(test)]
mod table;
