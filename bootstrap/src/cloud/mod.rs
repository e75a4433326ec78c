//! AWS, one adapter a service. Each speaks in the verbs and types of this program; requests,
//! paging and the shapes of replies stay inside.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the SDK's enums are open: a service may add a value any day"
)]

mod autoscaling;
mod config;
mod ec2;
mod ecs;
mod error;
mod iam;
mod ssm;
mod sts;
mod template;

pub(crate) use autoscaling::{Activity, Pinned};
pub(crate) use config::Cloud;
pub(crate) use ec2::Ec2Instance;
pub(crate) use ecs::{ContainerInstance, Standing};
pub(crate) use error::{CallError, Kind};
