//! `ecs.config`, in the two layers that ecs-init reads: what is written is rendered purely, then
//! applied atomically.

pub(crate) mod apply;
pub(crate) mod effective;
pub(crate) mod render;
