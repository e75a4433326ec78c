//! A node's life, from its first boot to its last lifecycle action. [`machine`] decides and is
//! pure; [`driver`] does what it says and tells what came of it; [`life`] is the two together.

pub(crate) mod cause;
pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod life;
pub(crate) mod machine;
mod perform;
pub(crate) mod saved;
pub(crate) mod schedule;
#[cfg(test)]
mod table;
pub(crate) mod waiting;
