//! Reads of single things that AWS also lists: by name where there are few groups, and where there are
//! many once for all, in pages, so that their number does not grow with groups.
//!
//! Lifecycle hooks have no such list, and that of parameters is filtered after it is cut into pages, so that
//! it takes as long as the account has parameters. Whoever may not see all roles reads them by name.

use std::collections::BTreeMap;

use tokio::sync::OnceCell;

use crate::{
    cloud::{CallError, Cloud, Kind, Listed},
    desired::{Desired, Group},
    inventory::{InstanceProfile, Role, Schedule, Template},
};

/// Fewer groups are read by name: the lists hold what else is in the account, too.
const MANY: usize = 5;

/// What was written before a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing by this run.
    First,
    /// Something: lists may show it late, and are not asked.
    Again,
}

/// One plan's reads.
pub(super) struct Reads<'a> {
    cloud: &'a Cloud,
    desired: &'a Desired,
    in_pages: bool,
    listed: OnceCell<Listed>,
    templates: OnceCell<BTreeMap<String, Template>>,
    schedules: OnceCell<Schedules>,
}

/// By Auto Scaling group and name.
type Schedules = BTreeMap<String, BTreeMap<String, Schedule>>;

impl<'a> Reads<'a> {
    pub(super) fn new(cloud: &'a Cloud, desired: &'a Desired, reading: Reading) -> Self {
        Self {
            cloud,
            desired,
            in_pages: reading == Reading::First && desired.groups.len() >= MANY,
            listed: OnceCell::new(),
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
        let read = async || match self.cloud.iam.roles(&policies.collect()).await {
            Err(error) if error.kind == Kind::Denied => Ok(Listed::default()),
            other => other,
        };
        self.listed.get_or_try_init(read).await
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
