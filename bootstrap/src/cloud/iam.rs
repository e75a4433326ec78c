//! Roles and instance profiles.

use std::collections::BTreeMap;

use aws_sdk_iam::{
    Client,
    config::Builder,
    types::{EntityType, InstanceProfile as SdkProfile, RoleDetail, Tag},
};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::error::{CallError, failed, found, gone};
use crate::{
    inventory::{InstanceProfile, Role, Tags},
    preflight::Quota,
};

/// The most that IAM gives at a time.
const ROLES_PER_PAGE: i32 = 1_000;

#[derive(Debug)]
pub(crate) struct Iam {
    client: Client,
}

/// What the list of all roles tells, by name.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// With their policies.
    pub(crate) roles: BTreeMap<String, Role>,
    /// Those that a role is in, where it tells their tags: whether it does is documented nowhere.
    pub(crate) profiles: BTreeMap<String, InstanceProfile>,
}

impl Iam {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// How many instance profiles there are and may be; `wanted` more are to come. A role for each comes
    /// with a quota of the same size.
    pub(crate) async fn quota(&self, wanted: u32) -> Result<Quota, CallError> {
        const CALL: &str = "iam:GetAccountSummary";
        let reply = self.client.get_account_summary().send().await;
        let reply = reply.map_err(failed(CALL, "account"))?;
        let summary = reply.summary_map.unwrap_or_default();
        let number = |key: &str| {
            let number = summary
                .iter()
                .find(|(known, _)| known.as_str() == key)
                .and_then(|(_, number)| u32::try_from(*number).ok());
            number.ok_or_else(|| CallError::malformed(CALL, "account", key))
        };
        Ok(Quota {
            what: "instance profiles",
            used: number("InstanceProfiles")?,
            limit: number("InstanceProfilesQuota")?,
            wanted,
        })
    }

    /// The role itself, without its policies.
    pub(crate) async fn role(&self, name: &str) -> Result<Option<Role>, CallError> {
        const CALL: &str = "iam:GetRole";
        let reply = self.client.get_role().role_name(name).send().await;
        let Some(reply) = found(reply.map_err(failed(CALL, name)))? else {
            return Ok(None);
        };
        let role = reply
            .role
            .ok_or_else(|| CallError::malformed(CALL, name, "role"))?;
        Ok(Some(Role {
            tags: tags(role.tags),
            trust_policy: document(role.assume_role_policy_document.as_deref()),
            permissions_boundary: role
                .permissions_boundary
                .and_then(|boundary| boundary.permissions_boundary_arn),
            ..Role::default()
        }))
    }

    /// Those roles that exist of these, policies included; each with the name of the inline policy to
    /// read. Lists all roles of the account, a right of its own (`iam:GetAccountAuthorizationDetails`).
    pub(crate) async fn roles(&self, policies: &BTreeMap<&str, &str>) -> Result<Listed, CallError> {
        let request = self.client.get_account_authorization_details();
        let mut pages = request
            .filter(EntityType::Role)
            .max_items(ROLES_PER_PAGE)
            .into_paginator()
            .send();
        let mut listed = Listed::default();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed("iam:GetAccountAuthorizationDetails", "account"))?;
            for mut detail in page.role_detail_list.unwrap_or_default() {
                let name = detail.role_name.clone().unwrap_or_default();
                let Some(policy) = policies.get(&*name) else {
                    continue;
                };
                let profiles = detail.instance_profile_list.take().unwrap_or_default();
                let told = profiles
                    .into_iter()
                    .filter(|profile| profile.tags.is_some());
                let profiles = told.map(|found| (found.instance_profile_name.clone(), found));
                let profiles = profiles.map(|(name, found)| (name, read_profile(found)));
                listed.profiles.extend(profiles);
                let _ = listed.roles.insert(name, read_role(detail, policy));
            }
        }
        Ok(listed)
    }

    /// Names of a role's inline policies, with the document of the one called `read`.
    pub(crate) async fn inline_policies(
        &self,
        role: &str,
        read: &str,
    ) -> Result<BTreeMap<String, Option<Value>>, CallError> {
        let names = async {
            let request = self.client.list_role_policies().role_name(role);
            let names = request.into_paginator().items().send().try_collect().await;
            names.map_err(failed("iam:ListRolePolicies", role))
        };
        let found = async {
            let request = self.client.get_role_policy().role_name(role);
            let reply = request.policy_name(read).send().await;
            found(reply.map_err(failed("iam:GetRolePolicy", role)))
        };
        let (names, found): (Vec<String>, _) = tokio::try_join!(names, found)?;
        let mut policies: BTreeMap<_, _> = names.into_iter().map(|name| (name, None)).collect();
        if let Some(found) = found {
            let document = document(Some(&found.policy_document));
            policies.insert(read.to_owned(), Some(document));
        }
        Ok(policies)
    }

    /// ARNs of the managed policies attached to a role.
    pub(crate) async fn attached_policies(&self, role: &str) -> Result<Vec<String>, CallError> {
        let policies: Vec<_> = self
            .client
            .list_attached_role_policies()
            .role_name(role)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("iam:ListAttachedRolePolicies", role))?;
        Ok(policies.into_iter().filter_map(|p| p.policy_arn).collect())
    }

    pub(crate) async fn create_service_linked_role(&self, service: &str) -> Result<(), CallError> {
        let request = self.client.create_service_linked_role();
        let reply = request.aws_service_name(service).send().await;
        reply
            .map(drop)
            .map_err(failed("iam:CreateServiceLinkedRole", service))
    }

    pub(crate) async fn create_role(
        &self,
        name: &str,
        trust_policy: &Value,
        permissions_boundary: Option<&str>,
        tags: &Tags,
    ) -> Result<(), CallError> {
        self.client
            .create_role()
            .role_name(name)
            .assume_role_policy_document(trust_policy.to_string())
            .set_permissions_boundary(permissions_boundary.map(str::to_owned))
            .set_tags(Some(iam_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:CreateRole", name))
    }

    pub(crate) async fn update_trust_policy(
        &self,
        role: &str,
        trust_policy: &Value,
    ) -> Result<(), CallError> {
        self.client
            .update_assume_role_policy()
            .role_name(role)
            .policy_document(trust_policy.to_string())
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:UpdateAssumeRolePolicy", role))
    }

    pub(crate) async fn put_role_policy(
        &self,
        role: &str,
        policy: &str,
        document: &Value,
    ) -> Result<(), CallError> {
        self.client
            .put_role_policy()
            .role_name(role)
            .policy_name(policy)
            .policy_document(document.to_string())
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:PutRolePolicy", role))
    }

    pub(crate) async fn delete_role_policy(
        &self,
        role: &str,
        policy: &str,
    ) -> Result<(), CallError> {
        let request = self.client.delete_role_policy().role_name(role);
        let reply = request.policy_name(policy).send().await;
        gone(reply.map_err(failed("iam:DeleteRolePolicy", role)))
    }

    pub(crate) async fn attach_role_policy(&self, role: &str, arn: &str) -> Result<(), CallError> {
        let request = self.client.attach_role_policy().role_name(role);
        let reply = request.policy_arn(arn).send().await;
        reply
            .map(drop)
            .map_err(failed("iam:AttachRolePolicy", role))
    }

    /// Bounds a role by a policy, or lifts the bound.
    pub(crate) async fn set_permissions_boundary(
        &self,
        role: &str,
        arn: Option<&str>,
    ) -> Result<(), CallError> {
        let Some(arn) = arn else {
            let request = self.client.delete_role_permissions_boundary();
            let reply = request.role_name(role).send().await;
            return gone(reply.map_err(failed("iam:DeleteRolePermissionsBoundary", role)));
        };
        let request = self.client.put_role_permissions_boundary().role_name(role);
        let reply = request.permissions_boundary(arn).send().await;
        reply
            .map(drop)
            .map_err(failed("iam:PutRolePermissionsBoundary", role))
    }

    pub(crate) async fn detach_role_policy(&self, role: &str, arn: &str) -> Result<(), CallError> {
        let request = self.client.detach_role_policy().role_name(role);
        let reply = request.policy_arn(arn).send().await;
        gone(reply.map_err(failed("iam:DetachRolePolicy", role)))
    }

    pub(crate) async fn delete_role(&self, name: &str) -> Result<(), CallError> {
        let reply = self.client.delete_role().role_name(name).send().await;
        gone(reply.map_err(failed("iam:DeleteRole", name)))
    }

    pub(crate) async fn instance_profile(
        &self,
        name: &str,
    ) -> Result<Option<InstanceProfile>, CallError> {
        const CALL: &str = "iam:GetInstanceProfile";
        let request = self.client.get_instance_profile();
        let reply = request.instance_profile_name(name).send().await;
        let Some(reply) = found(reply.map_err(failed(CALL, name)))? else {
            return Ok(None);
        };
        let profile = reply
            .instance_profile
            .ok_or_else(|| CallError::malformed(CALL, name, "instance profile"))?;
        Ok(Some(read_profile(profile)))
    }

    pub(crate) async fn create_instance_profile(
        &self,
        name: &str,
        tags: &Tags,
    ) -> Result<(), CallError> {
        self.client
            .create_instance_profile()
            .instance_profile_name(name)
            .set_tags(Some(iam_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:CreateInstanceProfile", name))
    }

    pub(crate) async fn add_role_to_instance_profile(
        &self,
        profile: &str,
        role: &str,
    ) -> Result<(), CallError> {
        self.client
            .add_role_to_instance_profile()
            .instance_profile_name(profile)
            .role_name(role)
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:AddRoleToInstanceProfile", profile))
    }

    pub(crate) async fn remove_role_from_instance_profile(
        &self,
        profile: &str,
        role: &str,
    ) -> Result<(), CallError> {
        let request = self.client.remove_role_from_instance_profile();
        let request = request.instance_profile_name(profile).role_name(role);
        gone(
            request
                .send()
                .await
                .map_err(failed("iam:RemoveRoleFromInstanceProfile", profile)),
        )
    }

    pub(crate) async fn delete_instance_profile(&self, name: &str) -> Result<(), CallError> {
        let request = self.client.delete_instance_profile();
        let reply = request.instance_profile_name(name).send().await;
        gone(reply.map_err(failed("iam:DeleteInstanceProfile", name)))
    }

    pub(crate) async fn tag_role(&self, name: &str, tags: &Tags) -> Result<(), CallError> {
        let request = self.client.tag_role().role_name(name);
        request
            .set_tags(Some(iam_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:TagRole", name))
    }

    pub(crate) async fn tag_instance_profile(
        &self,
        name: &str,
        tags: &Tags,
    ) -> Result<(), CallError> {
        let request = self.client.tag_instance_profile();
        request
            .instance_profile_name(name)
            .set_tags(Some(iam_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("iam:TagInstanceProfile", name))
    }
}

fn read_profile(profile: SdkProfile) -> InstanceProfile {
    InstanceProfile {
        tags: tags(profile.tags),
        roles: profile.roles.into_iter().map(|r| r.role_name).collect(),
    }
}

fn read_role(detail: RoleDetail, read: &str) -> Role {
    let inline = detail.role_policy_list.unwrap_or_default().into_iter();
    let inline = inline.filter_map(|policy| {
        let name = policy.policy_name?;
        let is_read = name == read;
        let found = is_read.then(|| document(policy.policy_document.as_deref()));
        Some((name, found))
    });
    let attached = detail.attached_managed_policies.unwrap_or_default();
    Role {
        tags: tags(detail.tags),
        trust_policy: document(detail.assume_role_policy_document.as_deref()),
        permissions_boundary: detail
            .permissions_boundary
            .and_then(|boundary| boundary.permissions_boundary_arn),
        inline_policies: inline.collect(),
        attached_policies: attached.into_iter().filter_map(|p| p.policy_arn).collect(),
        is_whole: true,
    }
}

/// IAM sends policies percent-encoded and the SDK leaves them so. What is no JSON after decoding
/// is no policy of ours either, and differs from every one.
fn document(encoded: Option<&str>) -> Value {
    let text = percent_decode_str(encoded.unwrap_or_default()).decode_utf8_lossy();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

fn tags(tags: Option<Vec<Tag>>) -> Tags {
    let tags = tags.unwrap_or_default().into_iter();
    tags.map(|tag| (tag.key, tag.value)).collect()
}

fn iam_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_compared_decoded() {
        let sent = "%7B%22Version%22%3A%20%222012-10-17%22%7D";
        assert_eq!(document(Some(sent)), json!({"Version": "2012-10-17"}));
        assert_eq!(document(Some("{\"a\":1}")), json!({"a": 1}));
        assert_eq!(document(None), Value::Null);
    }
}
