//! Reads of single things that AWS also lists: by name where there are few groups, and where there are
//! many once for all, in pages, so that their number does not grow with groups.
//!
//! Lifecycle hooks have no such list. Whoever may not see all of an account reads by name.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::OnceCell;

use crate::{
    cloud::{CallError, Cloud, Kind, Listed},
    desired::{Desired, Group},
    inventory::{InstanceProfile, Role, Schedule, Tags, Template},
};

/// Fewer groups are read by name: the lists hold what else is in the account, too.
const MANY: usize = 5;

/// One plan's reads.
pub(super) struct Reads<'a> {
    cloud: &'a Cloud,
    desired: &'a Desired,
    in_pages: bool,
    listed: OnceCell<Listed>,
    tagged: OnceCell<BTreeSet<String>>,
    templates: OnceCell<BTreeMap<String, Template>>,
    schedules: OnceCell<Schedules>,
}

/// By Auto Scaling group and name.
type Schedules = BTreeMap<String, BTreeMap<String, Schedule>>;

impl<'a> Reads<'a> {
    pub(super) fn new(cloud: &'a Cloud, desired: &'a Desired) -> Self {
        Self {
            cloud,
            desired,
            in_pages: desired.groups.len() >= MANY,
            listed: OnceCell::new(),
            tagged: OnceCell::new(),
            templates: OnceCell::new(),
            schedules: OnceCell::new(),
        }
    }

    /// A group's role. The list says policies, too, but shows a role that is new with a delay: one that it
    /// lacks is asked for.
    pub(super) async fn role(&self, group: &Group) -> Result<Option<Role>, CallError> {
        let name = &group.role.name;
        if self.in_pages
            && let Some(role) = self.listed().await?.roles.get(name)
        {
            return Ok(Some(role.clone()));
        }
        self.cloud.iam.role(name).await
    }

    /// A group's instance profile.
    pub(super) async fn instance_profile(
        &self,
        name: &str,
    ) -> Result<Option<InstanceProfile>, CallError> {
        if self.in_pages
            && let Some(profile) = self.listed().await?.profiles.get(name)
        {
            return Ok(Some(profile.clone()));
        }
        self.cloud.iam.instance_profile(name).await
    }

    async fn listed(&self) -> Result<&Listed, CallError> {
        let groups = self.desired.groups.iter();
        let policies = groups.map(|group| (&*group.role.name, &*group.role.policy_name));
        let read = async || unless_denied(self.cloud.iam.roles(&policies.collect()).await);
        self.listed.get_or_try_init(read).await
    }

    /// Tags of a group's parameter; `None` when there is no such parameter. Those that have all that they
    /// should have are found by these; the others are asked for.
    pub(super) async fn parameter_tags(&self, group: &Group) -> Result<Option<Tags>, CallError> {
        let name = &group.parameter.name;
        if self.in_pages && self.tagged().await?.contains(name) {
            return Ok(Some(group.tags.clone()));
        }
        self.cloud.ssm.tags(name).await
    }

    async fn tagged(&self) -> Result<&BTreeSet<String>, CallError> {
        let mut tags: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (key, value) in self.desired.groups.iter().flat_map(|group| &group.tags) {
            let _ = tags.entry(key).or_default().insert(value);
        }
        let names = self.desired.groups.iter();
        let names: Vec<&str> = names.map(|group| &*group.parameter.name).collect();
        let read = async || unless_denied(self.cloud.ssm.tagged(&names, &tags).await);
        self.tagged.get_or_try_init(read).await
    }

    /// The data of a launch template's newest version.
    pub(super) async fn template(&self, name: &str) -> Result<Template, CallError> {
        if self.in_pages {
            let names = self.desired.groups.iter();
            let names: Vec<&str> = names.map(|group| &*group.launch_template.name).collect();
            let read = || self.cloud.ec2.latest_versions(&names);
            let templates = self.templates.get_or_try_init(read).await?;
            if let Some(template) = templates.get(name) {
                return Ok(template.clone());
            }
        }
        self.cloud.ec2.latest_version(name).await
    }

    /// The scheduled actions of an Auto Scaling group, by name.
    pub(super) async fn schedules(
        &self,
        group: &str,
    ) -> Result<BTreeMap<String, Schedule>, CallError> {
        if !self.in_pages {
            let mut found = self.cloud.autoscaling.schedules(Some(group)).await?;
            return Ok(found.remove(group).unwrap_or_default());
        }
        let read = || self.cloud.autoscaling.schedules(None);
        let all = self.schedules.get_or_try_init(read).await?;
        Ok(all.get(group).cloned().unwrap_or_default())
    }
}

fn unless_denied<T: Default>(list: Result<T, CallError>) -> Result<T, CallError> {
    match list {
        Err(error) if error.kind == Kind::Denied => Ok(T::default()),
        other => other,
    }
}
