//! Containers beside ECS: what has to be done is planned purely, then executed.

pub(crate) mod execute;
pub(crate) mod plan;
