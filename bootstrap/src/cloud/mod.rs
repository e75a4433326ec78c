//! AWS, one adapter a service. Each speaks in the verbs and types of this program; requests,
//! paging and the shapes of replies stay inside.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the SDK's enums are open: a service may add a value any day"
)]

mod autoscaling;
mod cloudwatch;
mod cluster;
mod config;
mod ec2;
mod ecs;
mod error;
mod group;
mod iam;
mod launch;
mod s3;
mod scaling_policy;
mod ssm;
mod sts;
mod template;

pub(crate) use autoscaling::{Activity, Pinned};
pub(crate) use config::Cloud;
pub(crate) use ec2::Ec2Instance;
pub(crate) use ecs::{ContainerInstance, Service, Task};
pub(crate) use error::{CallError, Kind, passes};
pub(crate) use iam::Listed;
pub(crate) use launch::Launch;

/// The SDKs have signed numbers only; none of ours comes near their end.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Absent, too, if it is negative, which none is on AWS.
fn unsigned(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}
