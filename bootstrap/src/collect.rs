//! Reads what exists, in two rounds of parallel calls: everything by its deterministic name, while AWS
//! is asked who we are; the details of what was found.
//!
//! A group that left the file is known by its capacity provider on the cluster; only where there is
//! one that the file does not name are there further reads.
//!
//! Scaling policies and alarms are looked for only where there could be any: not of groups that ECS
//! scales and is to scale. Alarms do not carry their tags, so that a third round asks those that were
//! found for them.
//!
//! Reads are batched wherever the API can, so that their number grows with pages. A read that fails is an error: what is unknown is never taken for absent.

mod reads;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fleet_agent_config::names::tag;
use futures_util::{StreamExt, TryStreamExt, stream};

use self::reads::Reads;
use crate::{
    cloud::{CallError, Cloud, Service, Standing, Task},
    desired::{self, Desired, Hook, Image, ServiceRole},
    inventory::{
        self, Alarm, CapacityProvider, Cluster, Group, Inventory, LaunchTemplate, Parameter,
        Presence, Role, ScalingPolicy, Schedule, Tags, Template, Tenancy, Workload,
    },
    plan::Goal,
    spec::Direction,
};

/// Calls in flight for reads that cannot be batched: IAM's limits are unpublished, and low.
const PARALLEL: usize = 8;
/// Rounds of reads; [`identify`] is beside the first.
pub(crate) const ROUNDS: usize = 2;

/// Whose account this is.
///
/// # Errors
/// No credentials, no answer, or an account that is not the file's.
pub(crate) async fn identify(cloud: &Cloud, expected: Option<&str>) -> Result<String> {
    let account = cloud
        .sts
        .account()
        .await
        .with_context(|| format!("failed to ask {} who we are", cloud.endpoint()))?;
    if let Some(expected) = expected {
        ensure!(
            account == expected,
            "these credentials are for account {account}, but the file is for {expected} ([fleet] \
             account, or [cluster] adopt): use other credentials (AWS_PROFILE) or another file"
        );
    }
    Ok(account)
}

/// The second round: what needs a call for each thing that was found to be ours, and which groups
/// have left the file.
///
/// # Errors
/// The first read that failed.
pub(crate) async fn detailed(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    mut inventory: Inventory,
) -> Result<Inventory, CallError> {
    let (details, removed) = tokio::try_join!(details(cloud, desired, goal, &inventory), async {
        match inventory.standing_cluster() {
            Some(cluster) => removed(cloud, desired, cluster).await,
            None => Ok(Vec::new()),
        }
    })?;
    details.put_into(&mut inventory);
    // `up` only says that they are there.
    if goal == Goal::Down && !removed.is_empty() {
        let rest = Desired {
            groups: removed.clone(),
            ..desired.clone()
        };
        let mut found = named(cloud, &rest, goal).await?;
        let details = details_of_all(cloud, &rest, goal, &found.groups).await?;
        put(details, &mut found.groups);
        inventory.groups.extend(found.groups);
    }
    inventory.removed = removed;
    if goal == Goal::Down && inventory.given_cluster.is_some() {
        inventory.tenancy = tenancy(cloud, &desired.cluster.name, &inventory.groups).await?;
    }
    Ok(inventory)
}

/// What of somebody else's cluster depends on these groups.
async fn tenancy(
    cloud: &Cloud,
    cluster: &str,
    groups: &BTreeMap<String, Group>,
) -> Result<Tenancy, CallError> {
    let groups = groups.values();
    let nodes: BTreeSet<&str> = groups
        .filter_map(|group| group.auto_scaling_group.owned())
        .flat_map(|group| &group.instances)
        .map(|instance| instance.id.as_str())
        .collect();
    let (services, instances) = tokio::try_join!(
        cloud.ecs.services(cluster),
        cloud.ecs.container_instances(cluster)
    )?;
    let ours: BTreeSet<&str> = instances
        .iter()
        .filter(|instance| nodes.contains(instance.instance_id.as_str()))
        .map(|instance| instance.arn.as_str())
        .collect();
    // Without a node there is no task on one.
    let tasks = match ours.is_empty() {
        true => Vec::new(),
        false => cloud.ecs.tasks(cluster, None).await?,
    };
    Ok(depending(&services, &tasks, &ours))
}

/// From what is in a cluster, and the ARNs of the container instances that are ours.
fn depending(services: &[Service], tasks: &[Task], ours: &BTreeSet<&str>) -> Tenancy {
    let mut tenancy = Tenancy::default();
    for service in services {
        for provider in &service.providers {
            let bound = tenancy.bound.entry(provider.clone()).or_default();
            bound.insert(service.name.clone());
        }
    }
    let is_on_ours = |task: &&Task| {
        let on = task.container_instance.as_deref();
        on.is_some_and(|arn| ours.contains(arn))
    };
    for task in tasks.iter().filter(is_on_ours) {
        match &task.service {
            Some(service) => *tenancy.service_tasks.entry(service.clone()).or_default() += 1,
            None => tenancy.standalone_tasks += 1,
        }
    }
    tenancy
}

/// Groups of ours on the cluster that are not in the file any more.
///
/// # Errors
/// The read that failed.
pub(crate) async fn removed(
    cloud: &Cloud,
    desired: &Desired,
    cluster: &Cluster,
) -> Result<Vec<desired::Group>, CallError> {
    let known = Names::of(desired).capacity_providers;
    let others: Vec<String> = cluster
        .providers
        .iter()
        .filter(|name| !known.contains(name))
        .cloned()
        .collect();
    let found = cloud.ecs.capacity_providers(&others).await?;
    Ok(removed_groups(desired, &found))
}

/// Ours by the tags, and by a name that follows from them: one without the other proves nothing.
fn removed_groups(
    desired: &Desired,
    others: &BTreeMap<String, Standing<CapacityProvider>>,
) -> Vec<desired::Group> {
    let of = |(name, standing): (&String, &Standing<CapacityProvider>)| {
        let tags = &standing.resource.tags;
        let group = tags.get(tag::GROUP)?;
        let is_ours = Presence::judge(tags, &desired.identity, Some(group), || ()).is_ours();
        let removed = desired::removed(&desired.identity, group);
        (is_ours && removed.capacity_provider.name == *name).then_some(removed)
    };
    others.iter().filter_map(of).collect()
}

/// The first round, which needs nobody's answer; the account is not known by it.
///
/// # Errors
/// The first read that failed.
pub(crate) async fn named(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
) -> Result<Inventory, CallError> {
    let (names, reads) = (Names::of(desired), Reads::new(cloud, desired));
    let (
        subnets,
        described,
        values,
        parameter_tags,
        mut clusters,
        providers,
        groups,
        templates,
        firewalls,
        iam,
    ) = tokio::try_join!(
        cloud.ec2.subnets(&desired.network.subnet_ids),
        described_images(cloud, desired, goal),
        cloud.ssm.values(&names.parameters),
        each(desired, |group| reads.parameter_tags(group)),
        cloud.ecs.clusters(&names.clusters),
        cloud.ecs.capacity_providers(&names.capacity_providers),
        cloud.autoscaling.groups(&names.auto_scaling_groups),
        cloud.ec2.launch_templates(&names.launch_templates),
        cloud
            .ec2
            .security_groups(&desired.network.vpc_id, &names.security_groups),
        each(desired, |group| async {
            tokio::try_join!(
                reads.role(group),
                given_role(cloud, group),
                reads.instance_profile(&group.instance_profile),
            )
        }),
    )?;

    let mut inventory = Inventory {
        account: String::new(),
        subnets,
        images: published_images(desired, &values)
            .chain(described)
            .collect(),
        missing_service_roles: Vec::new(),
        given_cluster: desired
            .cluster
            .is_adopted
            .then(|| {
                let given = clusters.get(&desired.cluster.name)?;
                Some(given.resource.clone())
            })
            .flatten(),
        tenancy: Tenancy::default(),
        cluster: match clusters.remove(&desired.cluster.own_name) {
            None => Presence::Absent,
            Some(standing) => {
                let tags = standing.resource.tags.clone();
                judge(desired, None, &tags, standing.leaving, standing.resource)
            }
        },
        groups: BTreeMap::new(),
        removed: Vec::new(),
    };
    let found = desired.groups.iter().zip(iam).zip(parameter_tags);
    for ((group, (role, given_role, profile)), tags) in found {
        let name = Some(group.name.as_str());
        let value = values.get(&group.parameter.name);
        let parameter = tags.zip(value).map(|(tags, value)| Parameter {
            tags,
            value: value.clone(),
        });
        let existing = Group {
            role: present(desired, name, role, |r| &r.tags),
            given_role,
            instance_profile: present(desired, name, profile, |p| &p.tags),
            security_group: present(
                desired,
                name,
                firewalls.get(&group.security_group.name).cloned(),
                |g| &g.tags,
            ),
            launch_template: present(
                desired,
                name,
                templates.get(&group.launch_template.name).cloned(),
                |t| &t.tags,
            ),
            auto_scaling_group: match groups.get(&group.auto_scaling_group.name) {
                None => Presence::Absent,
                Some(None) => Presence::Leaving,
                Some(Some(asg)) => {
                    let tags = asg.tags.iter();
                    let tags = tags.map(|(key, tag)| (key.clone(), tag.value.clone()));
                    judge(desired, name, &tags.collect(), false, asg.clone())
                }
            },
            capacity_provider: match providers.get(&group.capacity_provider.name) {
                None => Presence::Absent,
                Some(standing) => judge(
                    desired,
                    name,
                    &standing.resource.tags,
                    standing.leaving,
                    standing.resource.clone(),
                ),
            },
            parameter: present(desired, name, parameter, |p| &p.tags),
            alarms: BTreeMap::new(),
        };
        inventory.groups.insert(group.name.clone(), existing);
    }
    Ok(inventory)
}

/// What the second round finds.
struct Details {
    missing_service_roles: Vec<ServiceRole>,
    workload: Workload,
    groups: BTreeMap<String, GroupDetails>,
}

async fn details(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    inventory: &Inventory,
) -> Result<Details, CallError> {
    let cluster = inventory.cluster.owned().is_some() && goal == Goal::Down;
    let found = &inventory.groups;
    let makes = |found: &Group| matches!(found.auto_scaling_group, Presence::Absent);
    let makes_cluster =
        !desired.cluster.is_adopted && matches!(inventory.cluster, Presence::Absent);
    let makes_something = goal == Goal::Up && (makes_cluster || found.values().any(makes));
    let (missing_service_roles, workload, groups) = tokio::try_join!(
        async {
            if makes_something {
                missing_service_roles(cloud, desired).await
            } else {
                Ok(Vec::new())
            }
        },
        async {
            if cluster {
                cloud.ecs.workload(&desired.cluster.own_name).await
            } else {
                Ok(Workload::default())
            }
        },
        details_of_all(cloud, desired, goal, found),
    )?;
    Ok(Details {
        missing_service_roles,
        workload,
        groups,
    })
}

impl Details {
    fn put_into(self, inventory: &mut Inventory) {
        inventory.missing_service_roles = self.missing_service_roles;
        if let Presence::Owned(cluster) = &mut inventory.cluster {
            cluster.workload = self.workload;
        }
        put(self.groups, &mut inventory.groups);
    }
}

fn put(details: BTreeMap<String, GroupDetails>, groups: &mut BTreeMap<String, Group>) {
    for (name, details) in details {
        let Some(existing) = groups.get_mut(&name) else {
            continue;
        };
        if let Presence::Owned(LaunchTemplate { latest, .. }) = &mut existing.launch_template {
            *latest = details.template;
        }
        if let Presence::Owned(asg) = &mut existing.auto_scaling_group {
            asg.hooks = details.hooks;
            asg.schedules = details.schedules;
            asg.scaling_policies = details.scaling_policies;
        }
        existing.alarms = details.alarms;
        if let Presence::Owned(role) = &mut existing.role
            && let Some(Policies { inline, attached }) = details.policies
        {
            role.inline_policies = inline;
            role.attached_policies = attached;
        }
    }
}

/// Whether a group could have scaling policies, or alarms that outlived them. Groups are given some once they
/// have a capacity provider that scales nothing, and lose them before it does again.
fn may_have_steps(group: &desired::Group, found: &Group) -> bool {
    let is_there = found.auto_scaling_group.is_ours() || found.capacity_provider.is_ours();
    group.scaling.steps().is_some() || (is_there && !found.is_scaled_by_ecs())
}

#[derive(Default)]
struct GroupDetails {
    template: Template,
    hooks: Vec<Hook>,
    schedules: BTreeMap<String, Schedule>,
    /// None where they were read with the role.
    policies: Option<Policies>,
    scaling_policies: BTreeMap<Direction, ScalingPolicy>,
    alarms: BTreeMap<Direction, Presence<Alarm>>,
}

struct Policies {
    inline: BTreeMap<String, Option<serde_json::Value>>,
    attached: Vec<String>,
}

async fn details_of_all(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    found: &BTreeMap<String, Group>,
) -> Result<BTreeMap<String, GroupDetails>, CallError> {
    let reads = &Reads::new(cloud, desired);
    let groups = desired.groups.iter();
    let groups = groups.filter_map(|group| Some((group, found.get(&group.name)?)));
    let each = groups.clone().map(|(group, found)| async move {
        let details = details_of(cloud, reads, group, found).await?;
        Ok((group, details))
    });
    let scaled = groups.filter(|(group, found)| may_have_steps(group, found));
    let names: Vec<String> = scaled
        .flat_map(|(group, _)| group.alarms.values().cloned())
        .collect();
    // They go with their groups.
    let asks_for_policies = goal == Goal::Up && !names.is_empty();
    let (each, mut policies, alarms) = tokio::try_join!(
        stream::iter(each)
            .buffered(PARALLEL)
            .try_collect::<Vec<_>>(),
        async {
            if asks_for_policies {
                cloud.autoscaling.scaling_policies().await
            } else {
                Ok(BTreeMap::new())
            }
        },
        cloud.cloudwatch.alarms(&names),
    )?;
    let each = each.into_iter().map(|(group, mut details)| {
        let policies = policies.remove(&group.auto_scaling_group.name);
        details.scaling_policies = policies.unwrap_or_default();
        let alarms = group.alarms.iter().filter_map(|(direction, name)| {
            let alarm = Some(alarms.get(name)?.clone());
            let alarm = present(desired, Some(&group.name), alarm, |alarm| &alarm.tags);
            Some((*direction, alarm))
        });
        details.alarms = alarms.collect();
        (group.name.clone(), details)
    });
    Ok(each.collect())
}

async fn details_of(
    cloud: &Cloud,
    reads: &Reads<'_>,
    group: &desired::Group,
    found: &Group,
) -> Result<GroupDetails, CallError> {
    let role = &group.role;
    let asg = &group.auto_scaling_group.name;
    let (template, hooks, schedules, policies) = tokio::try_join!(
        if_owned(&found.launch_template, || {
            reads.template(&group.launch_template.name)
        }),
        if_owned(&found.auto_scaling_group, || {
            cloud.autoscaling.hooks(asg)
        }),
        if_owned(&found.auto_scaling_group, || { reads.schedules(asg) }),
        if_owned(&found.role, || async {
            if found.role.owned().is_some_and(|role| role.is_whole) {
                return Ok(None);
            }
            let (inline, attached) = tokio::try_join!(
                cloud.iam.inline_policies(&role.name, &role.policy_name),
                cloud.iam.attached_policies(&role.name),
            )?;
            Ok(Some(Policies { inline, attached }))
        }),
    )?;
    Ok(GroupDetails {
        template,
        hooks,
        schedules,
        policies,
        ..GroupDetails::default()
    })
}

async fn missing_service_roles(
    cloud: &Cloud,
    desired: &Desired,
) -> Result<Vec<ServiceRole>, CallError> {
    let reads = desired.service_roles().into_iter().map(|role| async move {
        let found = cloud.iam.role(role.role()).await?;
        Ok(found.is_none().then_some(role))
    });
    let found: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn given_role(cloud: &Cloud, group: &desired::Group) -> Result<Option<Role>, CallError> {
    match &group.given_role {
        Some(name) => cloud.iam.role(name).await,
        None => Ok(None),
    }
}

async fn if_owned<T, V: Default, F>(
    presence: &Presence<T>,
    read: impl FnOnce() -> F,
) -> Result<V, CallError>
where
    F: Future<Output = Result<V, CallError>>,
{
    if presence.owned().is_some() {
        read().await
    } else {
        Ok(V::default())
    }
}

/// Reads something of every group, in the file's order.
async fn each<'a, V, F>(
    desired: &'a Desired,
    read: impl FnMut(&'a desired::Group) -> F,
) -> Result<Vec<V>, CallError>
where
    F: Future<Output = Result<V, CallError>>,
{
    stream::iter(desired.groups.iter().map(read))
        .buffered(PARALLEL)
        .try_collect()
        .await
}

fn present<T>(
    desired: &Desired,
    group: Option<&str>,
    resource: Option<T>,
    tags: impl FnOnce(&T) -> &Tags,
) -> Presence<T> {
    match resource {
        None => Presence::Absent,
        Some(resource) => {
            let tags = tags(&resource).clone();
            judge(desired, group, &tags, false, resource)
        }
    }
}

fn judge<T>(
    desired: &Desired,
    group: Option<&str>,
    tags: &Tags,
    leaving: bool,
    resource: T,
) -> Presence<T> {
    let presence = Presence::judge(tags, &desired.identity, group, || resource);
    if leaving && presence.is_ours() {
        Presence::Leaving
    } else {
        presence
    }
}

/// Those that Amazon publishes in SSM, which are all for x86_64.
fn published_images(
    desired: &Desired,
    values: &BTreeMap<String, String>,
) -> impl Iterator<Item = (Image, inventory::Image)> {
    images(desired).filter_map(|image| {
        let found = inventory::Image {
            id: values.get(image.parameter()?)?.clone(),
            ..inventory::Image::default()
        };
        Some((image.clone(), found))
    })
}

/// The others. Nothing is launched on the way down.
async fn described_images(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
) -> Result<Vec<(Image, inventory::Image)>, CallError> {
    let wanted: BTreeSet<&Image> = match goal {
        Goal::Up => images(desired).collect(),
        Goal::Down => BTreeSet::new(),
    };
    let reads = wanted.into_iter().map(|image| async move {
        let found = match image {
            Image::Pinned(id) => cloud.ec2.image(id).await?,
            Image::Tagged { owner, tags } => cloud.ec2.newest_image(owner, tags).await?,
            Image::Parameter(_) | Image::Release(_) => None,
        };
        Ok(found.map(|found| (image.clone(), found)))
    });
    let found: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn images(desired: &Desired) -> impl Iterator<Item = &Image> {
    let groups = desired.groups.iter();
    groups.map(|group| &group.launch_template.image)
}

/// What batched reads ask for.
struct Names<'a> {
    /// The environment's own, and an adopted one.
    clusters: Vec<&'a str>,
    capacity_providers: Vec<String>,
    auto_scaling_groups: Vec<String>,
    launch_templates: Vec<String>,
    security_groups: Vec<String>,
    /// The groups' own, and those that name images.
    parameters: Vec<String>,
}

impl<'a> Names<'a> {
    fn of(desired: &'a Desired) -> Self {
        let of = |name: fn(&desired::Group) -> &String| -> Vec<String> {
            desired.groups.iter().map(name).cloned().collect()
        };
        let own = desired.groups.iter().map(|group| &group.parameter.name);
        let images = images(desired).filter_map(Image::parameter);
        let mut parameters: Vec<String> = own.chain(images).cloned().collect();
        // SSM refuses a name given twice.
        parameters.sort();
        parameters.dedup();
        let mut clusters = vec![desired.cluster.own_name.as_str()];
        if desired.cluster.is_adopted && desired.cluster.name != desired.cluster.own_name {
            clusters.push(&desired.cluster.name);
        }
        Self {
            clusters,
            capacity_providers: of(|group| &group.capacity_provider.name),
            auto_scaling_groups: of(|group| &group.auto_scaling_group.name),
            launch_templates: of(|group| &group.launch_template.name),
            security_groups: of(|group| &group.security_group.name),
            parameters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        desired::{Cluster, Identity, Network},
        inventory::{AutoScalingGroup, ProviderSettings, Tags},
        plan::model,
        spec::{Ladder, Scaling, StepScaling},
    };

    /// What ECS scales and is to scale costs no call more.
    #[test]
    fn policies_and_alarms_are_asked_for_only_where_there_could_be_any() {
        let mut wanted = model::desired(&["web"]).groups.remove(0);
        let found = |is_there: bool, by_ecs: Option<bool>| Group {
            auto_scaling_group: match is_there {
                true => Presence::Owned(AutoScalingGroup::default()),
                false => Presence::Absent,
            },
            capacity_provider: match by_ecs {
                Some(managed_scaling) => Presence::Owned(CapacityProvider {
                    settings: ProviderSettings {
                        managed_scaling,
                        ..ProviderSettings::default()
                    },
                    ..CapacityProvider::default()
                }),
                None => Presence::Absent,
            },
            ..Group::default()
        };
        for (is_there, by_ecs, asks) in [
            (false, None, false),
            (true, Some(true), false),
            (true, Some(false), true),
            // Its provider was not made yet, or has gone before it.
            (true, None, true),
            // Somebody else deleted the group.
            (false, Some(false), true),
        ] {
            let found = found(is_there, by_ecs);
            let case = format!("{is_there} {by_ecs:?}");
            assert_eq!(may_have_steps(&wanted, &found), asks, "{case}");
        }
        let none = Ladder {
            minutes: 1,
            steps: Vec::new(),
        };
        wanted.scaling = Scaling::Steps(StepScaling {
            out: none.clone(),
            inward: none,
            warmup_seconds: 1,
        });
        assert!(may_have_steps(&wanted, &found(false, None)));
    }

    #[test]
    fn only_tasks_on_our_nodes_and_services_that_name_our_providers_depend_on_us() {
        let service = |name: &str, providers: &[&str]| Service {
            name: name.into(),
            providers: providers.iter().map(|name| (*name).into()).collect(),
        };
        let task = |service: Option<&str>, on: Option<&str>| Task {
            arn: "arn:task".into(),
            service: service.map(str::to_owned),
            container_instance: on.map(str::to_owned),
        };
        let found = depending(
            &[service("api", &["ours", "theirs"]), service("web", &[])],
            &[
                task(Some("web"), Some("ours/1")),
                task(Some("web"), Some("ours/2")),
                task(Some("web"), Some("theirs/1")),
                task(Some("web"), None),
                task(None, Some("ours/1")),
                task(None, Some("theirs/1")),
            ],
            &["ours/1", "ours/2"].into(),
        );
        assert_eq!(found.service_tasks, [("web".into(), 2)].into());
        assert_eq!(found.standalone_tasks, 1);
        assert_eq!(found.bound["ours"], ["api".to_owned()].into());
    }

    #[test]
    fn only_providers_with_our_tags_and_our_name_are_groups_of_ours() {
        let desired = Desired {
            identity: Identity {
                fleet: "shop".into(),
                environment: "dev".into(),
                owner: "f-1".into(),
                region: "eu-central-1".into(),
            },
            network: Network {
                vpc_id: "vpc-1".into(),
                subnet_ids: Vec::new(),
            },
            cluster: Cluster {
                name: "shop-dev".into(),
                is_adopted: false,
                own_name: "shop-dev".into(),
                tags: Tags::new(),
                container_insights: None,
                execute_command_logging: None,
                more_providers: Vec::new(),
                default_strategy: None,
            },
            groups: Vec::new(),
        };
        let provider = |owner: &str, environment: &str, group: &str| {
            let tags = [
                (tag::OWNER, owner),
                (tag::ENVIRONMENT, environment),
                (tag::GROUP, group),
            ];
            Standing {
                resource: CapacityProvider {
                    tags: tags.map(|(key, value)| (key.into(), value.into())).into(),
                    ..CapacityProvider::default()
                },
                leaving: false,
                updating: false,
                failure: None,
            }
        };
        let others = [
            ("shop-dev-batch".into(), provider("f-1", "dev", "batch")),
            ("shop-dev-a".into(), provider("f-2", "dev", "a")),
            ("shop-dev-b".into(), provider("f-1", "prod", "b")),
            ("renamed".into(), provider("f-1", "dev", "c")),
        ];
        let removed = removed_groups(&desired, &others.into());
        let names: Vec<&str> = removed.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["batch"]);
    }
}
