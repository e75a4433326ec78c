//! Roles and instance profiles.

use anyhow::{Result, ensure};

use super::{Apply, IAM_LIMIT, is_in_use, is_ours};
use crate::{
    cloud::{CallError, Kind},
    plan::IamStep,
};

impl Apply<'_> {
    pub(super) async fn iam(&self, step: &IamStep) -> Result<()> {
        let iam = &self.cloud.iam;
        match step {
            IamStep::CreateServiceLinkedRole { service } => {
                match iam.create_service_linked_role(service).await {
                    // "Service role name AWSServiceRoleForECS has been taken in this account".
                    Err(error) if error.says("has been taken") => Ok(()),
                    other => Ok(other?),
                }
            }
            IamStep::CreateRole {
                name,
                trust_policy,
                permissions_boundary,
                tags,
            } => {
                let boundary = permissions_boundary.as_deref();
                match iam.create_role(name, trust_policy, boundary, tags).await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let found = iam.role(name).await?;
                        is_ours(error, tags, found.map(|role| role.tags))
                    }
                    other => Ok(other?),
                }
            }
            IamStep::SetPermissionsBoundary { role, arn } => {
                Ok(iam.set_permissions_boundary(role, arn.as_deref()).await?)
            }
            IamStep::AttachRolePolicy { role, arn } => {
                let attach = || iam.attach_role_policy(role, arn);
                self.patiently(step.title(), IAM_LIMIT, is_unknown_yet, attach)
                    .await
            }
            IamStep::UpdateTrustPolicy { role, trust_policy } => {
                Ok(iam.update_trust_policy(role, trust_policy).await?)
            }
            IamStep::PutRolePolicy {
                role,
                policy,
                document,
            } => {
                let put = || iam.put_role_policy(role, policy, document);
                self.patiently(step.title(), IAM_LIMIT, is_unknown_yet, put)
                    .await
            }
            IamStep::DeleteRolePolicy { role, policy } => {
                Ok(iam.delete_role_policy(role, policy).await?)
            }
            IamStep::DetachRolePolicy { role, arn } => {
                Ok(iam.detach_role_policy(role, arn).await?)
            }
            IamStep::DeleteRole { name } => {
                self.patiently(step.title(), IAM_LIMIT, is_in_use, || iam.delete_role(name))
                    .await
            }
            IamStep::CreateInstanceProfile { name, tags } => {
                match iam.create_instance_profile(name, tags).await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let found = iam.instance_profile(name).await?;
                        is_ours(error, tags, found.map(|profile| profile.tags))
                    }
                    other => Ok(other?),
                }
            }
            IamStep::AddRoleToInstanceProfile { profile, role } => {
                let add = || iam.add_role_to_instance_profile(profile, role);
                match self
                    .tried(step.title(), IAM_LIMIT, is_unknown_yet, add)
                    .await?
                {
                    // One role at most: done if it is this one.
                    Err(error) if error.says("LimitExceeded") => {
                        let found = iam.instance_profile(profile).await?;
                        ensure!(found.is_some_and(|found| found.roles.contains(role)), error);
                        Ok(())
                    }
                    other => Ok(other?),
                }
            }
            IamStep::RemoveRoleFromInstanceProfile { profile, role } => {
                Ok(iam.remove_role_from_instance_profile(profile, role).await?)
            }
            IamStep::DeleteInstanceProfile { name } => {
                self.patiently(step.title(), IAM_LIMIT, is_in_use, || {
                    iam.delete_instance_profile(name)
                })
                .await
            }
        }
    }
}

/// IAM is eventually consistent: what was just created may be unknown to the next call.
fn is_unknown_yet(error: &CallError) -> bool {
    error.kind == Kind::NotFound
}
