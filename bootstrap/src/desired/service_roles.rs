//! Roles that AWS's services have of their own, one of each in an account: whoever uses a service first makes
//! its role, or the service fails.

use super::Desired;

/// A service with a role of its own (IAM guide, "AWS services that work with IAM").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRole {
    /// Amazon ECS.
    Ecs,
    /// EC2 Auto Scaling.
    AutoScaling,
    /// EC2's Spot instances.
    Spot,
}

impl ServiceRole {
    /// The service, `ecs.amazonaws.com`.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Ecs => "ecs.amazonaws.com",
            Self::AutoScaling => "autoscaling.amazonaws.com",
            Self::Spot => "spot.amazonaws.com",
        }
    }

    /// The role's name.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Ecs => "AWSServiceRoleForECS",
            Self::AutoScaling => "AWSServiceRoleForAutoScaling",
            Self::Spot => "AWSServiceRoleForEC2Spot",
        }
    }
}

impl Desired {
    /// Those that its services cannot do without.
    pub fn service_roles(&self) -> Vec<ServiceRole> {
        let mut roles = vec![ServiceRole::Ecs, ServiceRole::AutoScaling];
        let mut groups = self.groups.iter();
        if groups.any(|group| group.auto_scaling_group.spot.is_some()) {
            roles.push(ServiceRole::Spot);
        }
        roles
    }
}
