//! Carries out single steps: the calls, and the waits that AWS's eventual consistency asks for.
//!
//! Every wait has a limit, a typed reason and a line on the screen; a stop cuts it short. A step
//! that finds its work done already, by itself in an earlier attempt, is done.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

mod empty;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use backon::{BackoffBuilder, ExponentialBuilder};
use fleet_agent_config::names::tag;

use crate::{
    cloud::{CallError, Cloud, Kind, Pinned},
    desired::Desired,
    execute::{Event, Runner},
    inventory::{GroupTag, SecurityGroupRef, Tags, Template},
    plan::{GroupChange, Step, Taggable, TemplateUse, Version},
    progress::Progress,
    watch::{POLL, Watch},
};

/// IAM's changes reach other services within seconds; peers wait this long at most.
const IAM_LIMIT: Duration = Duration::from_secs(120);
/// ECS changes attachments and deletes clusters in minutes.
const ECS_LIMIT: Duration = Duration::from_secs(600);
/// What terraform gives a capacity provider to go.
const PROVIDER_GONE_LIMIT: Duration = Duration::from_secs(1_200);
/// Auto Scaling ends its activities, and EC2 frees network interfaces, in minutes.
const RELEASE_LIMIT: Duration = Duration::from_secs(600);
/// Between two capacity-provider writes: their bucket is refilled by one a second.
const PROVIDER_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// First and longest pause between two tries.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Runs steps against AWS.
pub(crate) struct Apply<'a> {
    cloud: &'a Cloud,
    desired: &'a Desired,
    watch: &'a Watch<'a>,
    progress: &'a Progress<'a>,
    made: Mutex<Made>,
    /// When the next capacity-provider write may start.
    provider_write: tokio::sync::Mutex<Option<Instant>>,
}

/// What AWS drew for us in this run.
#[derive(Debug, Default)]
struct Made {
    /// Ids by name.
    security_groups: BTreeMap<String, String>,
    /// Versions by launch template.
    versions: BTreeMap<String, i64>,
}

impl Runner for Apply<'_> {
    async fn run(&self, step: &Step) -> Result<()> {
        match step {
            Step::CreateRole { .. }
            | Step::UpdateTrustPolicy { .. }
            | Step::PutRolePolicy { .. }
            | Step::DeleteRolePolicy { .. }
            | Step::DetachRolePolicy { .. }
            | Step::DeleteRole { .. }
            | Step::CreateInstanceProfile { .. }
            | Step::AddRoleToInstanceProfile { .. }
            | Step::RemoveRoleFromInstanceProfile { .. }
            | Step::DeleteInstanceProfile { .. } => self.identity(step).await,
            Step::CreateSecurityGroup { .. }
            | Step::RevokeIngress { .. }
            | Step::DeleteSecurityGroup { .. }
            | Step::CreateLaunchTemplate { .. }
            | Step::CreateLaunchTemplateVersion { .. }
            | Step::DeleteLaunchTemplate { .. } => self.ec2(step).await,
            Step::CreateCluster { .. }
            | Step::PutClusterCapacityProviders { .. }
            | Step::DeleteService { .. }
            | Step::StopTasks { .. }
            | Step::DeregisterContainerInstances { .. }
            | Step::DeleteCluster { .. }
            | Step::CreateCapacityProvider { .. }
            | Step::UpdateCapacityProvider { .. }
            | Step::DeleteCapacityProvider { .. } => self.ecs(step).await,
            Step::CreateAutoScalingGroup(_)
            | Step::UpdateAutoScalingGroup { .. }
            | Step::PutLifecycleHook { .. }
            | Step::StartFirstNode { .. }
            | Step::AwaitFirstNode { .. }
            | Step::EmptyGroup { .. }
            | Step::DeleteAutoScalingGroup { .. } => self.auto_scaling(step).await,
            Step::PutParameter { name, value, tags } => {
                self.parameter(name, value, tags.as_ref()).await
            }
            Step::DeleteParameter { name } => Ok(self.cloud.ssm.delete(name).await?),
            Step::Tag { resource, tags } => self.tag(resource, tags).await,
        }
    }

    fn progress(&self, event: Event<'_>) {
        match event {
            Event::Started(step) => {
                if matches!(
                    step,
                    Step::EmptyGroup { .. } | Step::DeleteCapacityProvider { .. }
                ) {
                    self.progress.note(&step.title());
                }
            }
            Event::Done(step) => self.progress.done(&step.title()),
        }
    }
}

impl<'a> Apply<'a> {
    pub(crate) fn new(
        cloud: &'a Cloud,
        desired: &'a Desired,
        watch: &'a Watch<'a>,
        progress: &'a Progress<'a>,
    ) -> Self {
        Self {
            cloud,
            desired,
            watch,
            progress,
            made: Mutex::default(),
            provider_write: tokio::sync::Mutex::default(),
        }
    }

    async fn identity(&self, step: &Step) -> Result<()> {
        let iam = &self.cloud.iam;
        match step {
            Step::CreateRole {
                name,
                trust_policy,
                tags,
            } => match iam.create_role(name, trust_policy, tags).await {
                Err(error) if error.kind == Kind::AlreadyExists => {
                    let found = iam.role(name).await?;
                    is_ours(error, tags, found.map(|role| role.tags))
                }
                other => Ok(other?),
            },
            Step::UpdateTrustPolicy { role, trust_policy } => {
                Ok(iam.update_trust_policy(role, trust_policy).await?)
            }
            Step::PutRolePolicy {
                role,
                policy,
                document,
            } => Ok(iam.put_role_policy(role, policy, document).await?),
            Step::DeleteRolePolicy { role, policy } => {
                Ok(iam.delete_role_policy(role, policy).await?)
            }
            Step::DetachRolePolicy { role, arn } => Ok(iam.detach_role_policy(role, arn).await?),
            Step::DeleteRole { name } => {
                self.patiently(step, IAM_LIMIT, is_in_use, || iam.delete_role(name))
                    .await
            }
            Step::CreateInstanceProfile { name, tags } => {
                match iam.create_instance_profile(name, tags).await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let found = iam.instance_profile(name).await?;
                        is_ours(error, tags, found.map(|profile| profile.tags))
                    }
                    other => Ok(other?),
                }
            }
            Step::AddRoleToInstanceProfile { profile, role } => {
                match iam.add_role_to_instance_profile(profile, role).await {
                    // One role at most: done if it is this one.
                    Err(error) if error.says("LimitExceeded") => {
                        let found = iam.instance_profile(profile).await?;
                        ensure!(found.is_some_and(|found| found.roles.contains(role)), error);
                        Ok(())
                    }
                    other => Ok(other?),
                }
            }
            Step::RemoveRoleFromInstanceProfile { profile, role } => {
                Ok(iam.remove_role_from_instance_profile(profile, role).await?)
            }
            Step::DeleteInstanceProfile { name } => {
                self.patiently(step, IAM_LIMIT, is_in_use, || {
                    iam.delete_instance_profile(name)
                })
                .await
            }
            other => unroutable(other),
        }
    }

    async fn ec2(&self, step: &Step) -> Result<()> {
        let ec2 = &self.cloud.ec2;
        match step {
            Step::CreateSecurityGroup {
                name,
                description,
                vpc_id,
                tags,
            } => {
                let created = ec2.create_security_group(name, description, vpc_id, tags);
                let id = match created.await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(name);
                        let mut found = ec2.security_groups(vpc_id, names).await?;
                        let found = found.remove(name);
                        let id = found.as_ref().map(|group| group.id.clone());
                        is_ours(error, tags, found.map(|group| group.tags))?;
                        id.unwrap_or_default()
                    }
                    other => other?,
                };
                self.made().security_groups.insert(name.clone(), id);
                Ok(())
            }
            Step::RevokeIngress { id, rules, .. } => Ok(ec2.revoke_ingress(id, rules).await?),
            Step::DeleteSecurityGroup { name, id } => self.delete_security_group(name, id).await,
            Step::CreateLaunchTemplate {
                name,
                template,
                tags,
            } => {
                let groups = self.security_groups(template)?;
                let created = ec2.create_launch_template(name, template, groups, tags);
                let version = match created.await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(name);
                        let found = ec2.launch_templates(names).await?.remove(name);
                        let version = found.as_ref().map(|template| template.latest_version);
                        is_ours(error, tags, found.map(|template| template.tags))?;
                        version.unwrap_or(1)
                    }
                    other => {
                        other?;
                        1
                    }
                };
                self.made().versions.insert(name.clone(), version);
                Ok(())
            }
            Step::CreateLaunchTemplateVersion { name, template } => {
                let groups = self.security_groups(template)?;
                let created = ec2.create_launch_template_version(name, template, groups);
                let version = created.await?;
                self.made().versions.insert(name.clone(), version);
                Ok(())
            }
            Step::DeleteLaunchTemplate { name } => Ok(ec2.delete_launch_template(name).await?),
            other => unroutable(other),
        }
    }

    async fn ecs(&self, step: &Step) -> Result<()> {
        let ecs = &self.cloud.ecs;
        match step {
            Step::CreateCluster { name, tags } => {
                let create = || ecs.create_cluster(name, tags);
                self.patiently(step, IAM_LIMIT, is_linking, create).await
            }
            Step::PutClusterCapacityProviders {
                cluster,
                providers,
                default_strategy,
            } => {
                let put =
                    || ecs.put_cluster_capacity_providers(cluster, providers, default_strategy);
                self.patiently(step, ECS_LIMIT, is_settling, put).await?;
                self.cluster_settled(cluster).await
            }
            Step::DeleteService { cluster, service } => {
                Ok(ecs.delete_service(cluster, service).await?)
            }
            Step::StopTasks { cluster, tasks } => {
                for task in tasks {
                    ecs.stop_task(cluster, task).await?;
                }
                Ok(())
            }
            Step::DeregisterContainerInstances { cluster } => {
                for instance in ecs.container_instances(cluster).await? {
                    ecs.deregister(cluster, &instance.arn).await?;
                }
                Ok(())
            }
            Step::DeleteCluster { name } => {
                let delete = || ecs.delete_cluster(name);
                self.patiently(step, ECS_LIMIT, is_settling, delete).await
            }
            Step::CreateCapacityProvider {
                name,
                auto_scaling_group,
                settings,
                tags,
            } => {
                let create = || async {
                    self.provider_write_turn().await;
                    ecs.create_capacity_provider(name, auto_scaling_group, settings, tags)
                        .await
                };
                match self.tried(step, ECS_LIMIT, is_settling, create).await? {
                    Err(error) if error.says("already exists") => {
                        let names = std::slice::from_ref(name);
                        let found = ecs.capacity_providers(names).await?.remove(name);
                        is_ours(error, tags, found.map(|found| found.resource.tags))
                    }
                    other => Ok(other?),
                }
            }
            Step::UpdateCapacityProvider { name, settings } => {
                let update = || async {
                    self.provider_write_turn().await;
                    ecs.update_capacity_provider(name, settings).await
                };
                self.patiently(step, ECS_LIMIT, is_settling, update).await
            }
            Step::DeleteCapacityProvider { name } => {
                let delete = || async {
                    self.provider_write_turn().await;
                    ecs.delete_capacity_provider(name).await
                };
                self.patiently(step, PROVIDER_GONE_LIMIT, is_settling, delete)
                    .await?;
                self.provider_gone(name).await
            }
            other => unroutable(other),
        }
    }

    async fn auto_scaling(&self, step: &Step) -> Result<()> {
        let auto_scaling = &self.cloud.autoscaling;
        match step {
            Step::CreateAutoScalingGroup(new) => {
                let template = self.pinned(&new.template)?;
                let create = || auto_scaling.create(new, template.clone());
                let created = self
                    .tried(step, IAM_LIMIT, CallError::is_profile_unknown_yet, create)
                    .await?;
                match created {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(&new.name);
                        let found = auto_scaling.groups(names).await?.remove(&new.name);
                        let found = found.flatten().map(|group| plain(&group.tags));
                        is_ours(error, &plain(&new.tags), found)
                    }
                    other => Ok(other?),
                }
            }
            Step::UpdateAutoScalingGroup { name, change } => {
                let template = match &change.template {
                    Some(template) => Some(self.pinned(template)?),
                    None => None,
                };
                let update = || auto_scaling.update(name, change, template.clone());
                self.patiently(step, RELEASE_LIMIT, is_busy, update).await
            }
            Step::PutLifecycleHook { group, hook } => {
                Ok(auto_scaling.put_hook(group, hook).await?)
            }
            Step::StartFirstNode { group } => {
                self.watch.remember(group).await?;
                let change = GroupChange {
                    desired: Some(1),
                    ..GroupChange::default()
                };
                Ok(auto_scaling.update(group, &change, None).await?)
            }
            Step::AwaitFirstNode { group } => self.watch.ready(group, Some(1)).await,
            Step::EmptyGroup { group, cluster } => self.empty_group(group, cluster).await,
            Step::DeleteAutoScalingGroup { name } => {
                let delete = || auto_scaling.delete(name);
                self.patiently(step, RELEASE_LIMIT, is_busy, delete).await?;
                self.until(RELEASE_LIMIT, name, async || {
                    let found = auto_scaling.groups(std::slice::from_ref(name)).await?;
                    Ok(found.is_empty())
                })
                .await
            }
            other => unroutable(other),
        }
    }

    async fn parameter(&self, name: &str, value: &str, tags: Option<&Tags>) -> Result<()> {
        let ssm = &self.cloud.ssm;
        let Some(tags) = tags else {
            return Ok(ssm.overwrite(name, value).await?);
        };
        match ssm.create(name, value, tags).await {
            Err(error) if error.kind == Kind::AlreadyExists => {
                is_ours(error, tags, ssm.tags(name).await?)?;
                Ok(ssm.overwrite(name, value).await?)
            }
            other => Ok(other?),
        }
    }

    async fn tag(&self, resource: &Taggable, tags: &BTreeMap<String, GroupTag>) -> Result<()> {
        let plain = plain(tags);
        match resource {
            Taggable::Ecs(arn) => self.cloud.ecs.tag(arn, &plain).await?,
            Taggable::Role(name) => self.cloud.iam.tag_role(name, &plain).await?,
            Taggable::InstanceProfile(name) => {
                self.cloud.iam.tag_instance_profile(name, &plain).await?;
            }
            Taggable::SecurityGroup(id) => self.cloud.ec2.tag(id, &plain).await?,
            Taggable::LaunchTemplate(name) => {
                self.cloud.ec2.tag_launch_template(name, &plain).await?;
            }
            Taggable::AutoScalingGroup(name) => self.cloud.autoscaling.tag(name, tags).await?,
            Taggable::Parameter(name) => self.cloud.ssm.tag(name, &plain).await?,
        }
        Ok(())
    }

    async fn delete_security_group(&self, name: &str, id: &str) -> Result<()> {
        let ec2 = &self.cloud.ec2;
        let began = Instant::now();
        loop {
            let error = match ec2.delete_security_group(id).await {
                Ok(()) => {
                    self.progress.settled(name);
                    return Ok(());
                }
                Err(error) if is_in_use(&error) => error,
                Err(error) => return Err(error.into()),
            };
            let holders = ec2.holders(id).await?.join(", ");
            if began.elapsed() >= RELEASE_LIMIT {
                return Err(error).context(format!("still held by {holders}"));
            }
            self.progress.live(name, &format!("waits for {holders}"));
            self.watch.pause(POLL).await?;
        }
    }

    async fn cluster_settled(&self, cluster: &str) -> Result<()> {
        self.until(ECS_LIMIT, cluster, async || {
            match self.cloud.ecs.cluster(cluster).await? {
                Some(found) => match found.failure {
                    Some(why) => bail!("cluster {cluster}: {why}"),
                    None => Ok(!found.updating),
                },
                None => bail!("cluster {cluster} is gone: somebody deleted it meanwhile"),
            }
        })
        .await
    }

    async fn provider_gone(&self, name: &str) -> Result<()> {
        self.until(PROVIDER_GONE_LIMIT, name, async || {
            let names = std::slice::from_ref(&name.to_owned()).to_vec();
            match self
                .cloud
                .ecs
                .capacity_providers(&names)
                .await?
                .remove(name)
            {
                None => Ok(true),
                Some(found) => match found.failure {
                    Some(why) => bail!("ECS could not delete capacity provider {name}: {why}"),
                    None => Ok(false),
                },
            }
        })
        .await
    }

    /// Asks until the answer is yes.
    async fn until(
        &self,
        limit: Duration,
        what: &str,
        is_done: impl AsyncFn() -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while !is_done().await? {
            ensure!(
                began.elapsed() < limit,
                "{what} is not done after {} minutes: look at it in the console, then run this \
                 again",
                limit.as_secs() / 60
            );
            self.progress.live(what, "waiting for AWS");
            self.watch.pause(POLL).await?;
        }
        self.progress.settled(what);
        Ok(())
    }

    /// Calls until it works, or fails for good.
    async fn patiently<T, F>(
        &self,
        step: &Step,
        limit: Duration,
        passes: impl Fn(&CallError) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        Ok(self.tried(step, limit, passes, call).await??)
    }

    /// Calls again while the error is one that passes, for `limit` in all. The outer error is a
    /// stop that was asked for.
    async fn tried<T, F>(
        &self,
        step: &Step,
        limit: Duration,
        passes: impl Fn(&CallError) -> bool,
        call: impl Fn() -> F,
    ) -> Result<Result<T, CallError>>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (first, longest) = RETRY_PAUSE;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_total_delay(Some(limit))
            .build();
        let title = step.title();
        for pause in pauses {
            match call().await {
                Err(error) if passes(&error) => {
                    self.progress
                        .live(&title, &format!("waits: {}", error.message));
                    self.watch.pause(pause).await?;
                }
                other => {
                    self.progress.settled(&title);
                    return Ok(other);
                }
            }
        }
        Ok(call().await)
    }

    /// Lets capacity-provider writes pass one a second.
    async fn provider_write_turn(&self) {
        let mut next = self.provider_write.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at.into()).await;
        }
        *next = Some(Instant::now() + PROVIDER_WRITE_INTERVAL);
    }

    fn security_groups(&self, template: &Template) -> Result<Vec<String>> {
        let made = self.made();
        let id = |group: &SecurityGroupRef| match group {
            SecurityGroupRef::Id(id) => Ok(id.clone()),
            SecurityGroupRef::Created(name) => {
                let id = made.security_groups.get(name).cloned();
                id.with_context(|| format!("security group {name} was not created before: a bug"))
            }
        };
        template.security_groups.iter().map(id).collect()
    }

    fn pinned<'t>(&self, template: &'t TemplateUse) -> Result<Pinned<'t>> {
        let version = match template.version {
            Version::Number(number) => Some(number),
            Version::Created => self.made().versions.get(&template.name).copied(),
        };
        Ok(Pinned {
            name: &template.name,
            version: version.with_context(|| {
                format!(
                    "launch template {} was not created before: a bug",
                    template.name
                )
            })?,
            instance_types: &template.instance_types,
        })
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resource that exists already is fine if it carries the tags that we were about to give it:
/// then an earlier attempt, whose answer was lost, made it.
fn is_ours(error: CallError, wanted: &Tags, found: Option<Tags>) -> Result<()> {
    let found = found.unwrap_or_default();
    let same = |key: &str| wanted.get(key) == found.get(key);
    if same(tag::OWNER) && same(tag::ENVIRONMENT) && same(tag::GROUP) {
        return Ok(());
    }
    Err(error).context("somebody else just created it, so it is left alone")
}

fn plain(tags: &BTreeMap<String, GroupTag>) -> Tags {
    tags.iter()
        .map(|(key, tag)| (key.clone(), tag.value.clone()))
        .collect()
}

fn unroutable(step: &Step) -> Result<()> {
    bail!("{} was sent to the wrong service: a bug", step.title())
}

fn is_in_use(error: &CallError) -> bool {
    error.kind == Kind::InUse
}

/// Auto Scaling is in the middle of something.
fn is_busy(error: &CallError) -> bool {
    error.kind == Kind::InUse || error.says("is still in progress")
}

/// ECS makes its service-linked role with an account's first cluster, and not at once.
fn is_linking(error: &CallError) -> bool {
    error.says("service linked role")
}

/// ECS is in the middle of something.
fn is_settling(error: &CallError) -> bool {
    error.kind == Kind::InUse
        || is_linking(error)
        || error.says("was not ACTIVE")
        || error.says("in use")
        || error.says("UpdateInProgress")
        || error.says("update in progress")
}
