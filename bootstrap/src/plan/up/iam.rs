//! Roles and instance profiles.

use super::Up;
use crate::{
    desired,
    inventory::Group,
    plan::{IamStep, Mark, Steps, Taggable, describe},
};

impl Up<'_> {
    /// What services would otherwise make when they are first used, and are then not ready to work with.
    pub(super) fn service_roles(&mut self) -> Steps {
        let missing = self.inventory.missing_service_roles.iter();
        missing
            .map(|missing| {
                self.builder.line(
                    Mark::Create,
                    "service-role",
                    missing.role(),
                    "one for the account, never deleted",
                );
                let service = missing.service().to_owned();
                let create = IamStep::CreateServiceLinkedRole { service };
                self.builder.step(create, [])
            })
            .collect()
    }

    /// One of the account's own. The one made before stays until `down`: nodes may still have it.
    pub(super) fn given_role(
        &mut self,
        name: &str,
        group: &desired::Group,
        existing: &Group,
    ) -> Steps {
        self.builder
            .line(Mark::Adopted, "role", name, "kept, never changed");
        if existing.role.owned().is_some() {
            let detail = "no longer used, removed by `down`";
            self.builder
                .line(Mark::Keep, "role", &group.role.name, detail);
        }
        Steps::new()
    }

    pub(super) fn role(&mut self, group: &desired::Group, existing: &Group) -> Steps {
        let wanted = &group.role;
        let attach = |arn: &String| IamStep::AttachRolePolicy {
            role: wanted.name.clone(),
            arn: arn.clone(),
        };
        let document = wanted.policy(&self.inventory.account);
        let put = IamStep::PutRolePolicy {
            role: wanted.name.clone(),
            policy: wanted.policy_name.clone(),
            document: document.clone(),
        };
        let Some(role) = existing.role.owned() else {
            self.builder.line(Mark::Create, "role", &wanted.name, "");
            let create = IamStep::CreateRole {
                name: wanted.name.clone(),
                trust_policy: wanted.trust_policy.clone(),
                permissions_boundary: wanted.permissions_boundary.clone(),
                tags: group.tags.clone(),
            };
            let create = self.builder.step(create, []);
            let mut steps = vec![create, self.builder.step(put, [create])];
            for arn in &wanted.managed_policies {
                steps.push(self.builder.step(attach(arn), [create]));
            }
            return steps;
        };

        let mut steps = Steps::new();
        let mut corrected = Vec::new();
        if role.trust_policy != wanted.trust_policy {
            corrected.push("trust policy".to_owned());
            let trust = IamStep::UpdateTrustPolicy {
                role: wanted.name.clone(),
                trust_policy: wanted.trust_policy.clone(),
            };
            steps.push(self.builder.step(trust, []));
        }
        if role.permissions_boundary != wanted.permissions_boundary {
            let or_none = |arn: &Option<String>| arn.clone().unwrap_or_else(|| "none".to_owned());
            corrected.push(format!(
                "permissions boundary {} -> {}",
                or_none(&role.permissions_boundary),
                or_none(&wanted.permissions_boundary)
            ));
            let bound = IamStep::SetPermissionsBoundary {
                role: wanted.name.clone(),
                arn: wanted.permissions_boundary.clone(),
            };
            steps.push(self.builder.step(bound, []));
        }
        match role.inline_policies.get(&wanted.policy_name) {
            Some(Some(found)) if *found == document => {}
            Some(_) => {
                corrected.push("policy differs from the file's".to_owned());
                steps.push(self.builder.step(put, []));
            }
            None => {
                corrected.push("policy is missing".to_owned());
                steps.push(self.builder.step(put, []));
            }
        }
        for policy in role.inline_policies.keys() {
            if *policy != wanted.policy_name {
                corrected.push(format!("removes policy {policy}"));
                let delete = IamStep::DeleteRolePolicy {
                    role: wanted.name.clone(),
                    policy: policy.clone(),
                };
                steps.push(self.builder.step(delete, []));
            }
        }
        let missing = wanted.managed_policies.iter();
        for arn in missing.filter(|arn| !role.attached_policies.contains(arn)) {
            corrected.push(format!("attaches {arn}"));
            steps.push(self.builder.step(attach(arn), []));
        }
        let attached = role.attached_policies.iter();
        for arn in attached.filter(|arn| !wanted.managed_policies.contains(arn)) {
            corrected.push(format!("detaches {arn}"));
            let detach = IamStep::DetachRolePolicy {
                role: wanted.name.clone(),
                arn: arn.clone(),
            };
            steps.push(self.builder.step(detach, []));
        }
        let tags = self.tags(
            Taggable::Role(wanted.name.clone()),
            &group.tags,
            &role.tags,
            [],
        );
        if corrected.is_empty() {
            self.keep_or_change("role", &wanted.name, describe::tagged(&tags));
        } else {
            self.builder
                .line(Mark::Correct, "role", &wanted.name, corrected.join(", "));
        }
        steps.extend(tags);
        steps
    }

    pub(super) fn instance_profile(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        role: Option<usize>,
    ) -> Steps {
        let name = &group.instance_profile;
        let add = IamStep::AddRoleToInstanceProfile {
            profile: name.clone(),
            role: group.node_role().to_owned(),
        };
        let Some(profile) = existing.instance_profile.owned() else {
            self.builder
                .line(Mark::Create, "instance-profile", name, "");
            let create = IamStep::CreateInstanceProfile {
                name: name.clone(),
                tags: group.tags.clone(),
            };
            let create = self.builder.step(create, []);
            let after = role.into_iter().chain([create]);
            return vec![self.builder.step(add, after)];
        };

        let mut steps = self.tags(
            Taggable::InstanceProfile(name.clone()),
            &group.tags,
            &profile.tags,
            [],
        );
        let mut details = describe::tagged(&steps);
        // A profile holds one role at most.
        for other in profile.roles.iter().filter(|r| *r != group.node_role()) {
            details.push(format!("removes role {other}"));
            let remove = IamStep::RemoveRoleFromInstanceProfile {
                profile: name.clone(),
                role: other.clone(),
            };
            steps.push(self.builder.step(remove, []));
        }
        if !profile.roles.iter().any(|role| role == group.node_role()) {
            details.push("gets its role".to_owned());
            let after: Steps = role.iter().chain(&steps).copied().collect();
            steps.push(self.builder.step(add, after));
        }
        self.keep_or_change("instance-profile", name, details);
        steps
    }
}
