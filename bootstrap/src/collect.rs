//! Reads what exists, in two rounds of parallel calls: everything by its deterministic name, while AWS
//! is asked who we are; the details of what was found.
//!
//! A group that left the file is known by what it is launched from and its capacity provider; only where
//! there is one are there further reads.
//!
//! Reads are batched wherever the API can, so that their number grows with pages. A read that fails is
//! an error: what is unknown is never taken for absent.

mod details;
mod reads;
mod tenancy;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fleet_agent_config::names::tag;
use futures_util::{StreamExt, TryStreamExt, stream};

pub(crate) use self::reads::Reading;
use self::{
    details::{details, details_of_all, put},
    reads::Reads,
    tenancy::tenancy,
};
use crate::{
    cloud::{CallError, Cloud},
    desired::{self, Desired, Identity, Image},
    inventory::{
        self, Bucket, Cluster, Group, Inventory, Parameter, Presence, Role, Tags, Tenancy,
    },
    plan::Goal,
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
    reading: Reading,
    mut inventory: Inventory,
) -> Result<Inventory, CallError> {
    let (details, removed) = tokio::try_join!(
        details(cloud, desired, goal, reading, &inventory),
        removed(cloud, desired, inventory.standing_cluster()),
    )?;
    details.put_into(&mut inventory);
    // `up` only says that they are there.
    if goal == Goal::Down && !removed.is_empty() {
        let rest = Desired {
            groups: removed.clone(),
            ..desired.clone()
        };
        let mut found = named(cloud, &rest, goal, reading).await?;
        let details = details_of_all(cloud, &rest, goal, reading, &found.groups).await?;
        put(details, &mut found.groups);
        inventory.groups.extend(found.groups);
    }
    inventory.removed = removed;
    if goal == Goal::Down && desired.bucket.upload.is_none() && inventory.tells_of_bucket() {
        inventory.bucket = bucket(cloud, desired).await?;
    }
    if goal == Goal::Down && inventory.given_cluster.is_some() {
        inventory.tenancy = tenancy(cloud, &desired.cluster.name, &inventory.groups).await?;
    }
    Ok(inventory)
}

/// Whose the bucket is, if it is there.
async fn bucket(cloud: &Cloud, desired: &Desired) -> Result<Presence<Bucket>, CallError> {
    let tags = cloud.s3.tags(&desired.bucket.name).await?;
    let found = tags.map(|tags| Bucket {
        tags,
        ..Bucket::default()
    });
    Ok(present(desired, None, found, |bucket| &bucket.tags))
}

/// Groups of ours that are not in the file any more: by a capacity provider on the cluster, an Auto Scaling
/// group or a launch template, of which `down` deletes the last after everything else.
async fn removed(
    cloud: &Cloud,
    desired: &Desired,
    cluster: Option<&Cluster>,
) -> Result<Vec<desired::Group>, CallError> {
    let known = Names::of(desired).capacity_providers;
    let attached = cluster.into_iter().flat_map(|cluster| &cluster.providers);
    let others: Vec<String> = attached
        .filter(|name| !known.contains(name))
        .cloned()
        .collect();
    let Identity {
        owner, environment, ..
    } = &desired.identity;
    let ours = [(tag::OWNER, &**owner), (tag::ENVIRONMENT, &**environment)];
    let (providers, groups, templates) = tokio::try_join!(
        cloud.ecs.capacity_providers(&others),
        cloud.autoscaling.tagged(&ours),
        cloud.ec2.tagged_launch_templates(&ours),
    )?;
    let providers = providers.into_iter();
    let providers = providers.map(|(name, found)| (name, found.resource.tags));
    let mut removed = removed_groups(desired, providers, |group| &group.capacity_provider.name);
    removed.extend(removed_groups(desired, groups, |group| {
        &group.auto_scaling_group.name
    }));
    removed.extend(removed_groups(desired, templates, |group| {
        &group.launch_template.name
    }));
    Ok(removed.into_values().collect())
}

/// Ours by the tags, and by a name that follows from them: one without the other proves nothing.
fn removed_groups(
    desired: &Desired,
    found: impl IntoIterator<Item = (String, Tags)>,
    named: fn(&desired::Group) -> &String,
) -> BTreeMap<String, desired::Group> {
    let is_in_file = |name: &str| desired.groups.iter().any(|group| group.name == name);
    let of = |(name, tags): (String, Tags)| {
        let group = tags.get(tag::GROUP).filter(|group| !is_in_file(group))?;
        let is_ours = Presence::judge(&tags, &desired.identity, Some(group), || ()).is_ours();
        let removed = desired::removed(&desired.identity, group);
        (is_ours && *named(&removed) == name).then(|| (group.clone(), removed))
    };
    found.into_iter().filter_map(of).collect()
}

/// The first round, which needs nobody's answer; the account is not known by it.
///
/// # Errors
/// The first read that failed.
pub(crate) async fn named(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    reading: Reading,
) -> Result<Inventory, CallError> {
    let names = Names::of(desired);
    let reads = Reads::new(cloud, desired, reading);
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
        bucket,
    ) = tokio::try_join!(
        cloud.ec2.subnets(&desired.network.subnet_ids),
        described_images(cloud, desired, goal),
        cloud.ssm.values(&names.parameters),
        each(desired, |group| cloud.ssm.tags(&group.parameter.name)),
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
        async {
            match desired.bucket.upload {
                Some(_) => bucket(cloud, desired).await,
                None => Ok(Presence::Absent),
            }
        },
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
        bucket,
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

async fn given_role(cloud: &Cloud, group: &desired::Group) -> Result<Option<Role>, CallError> {
    match &group.given_role {
        Some(name) => cloud.iam.role(name).await,
        None => Ok(None),
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
        inventory::Tags,
    };

    #[test]
    fn only_what_has_our_tags_and_our_name_is_of_a_group_of_ours() {
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
            source: None,
            bucket: desired::Bucket {
                name: "fleet-shop-dev-bucket".into(),
                tags: Tags::new(),
                upload: None,
            },
            groups: Vec::new(),
        };
        let provider = |owner: &str, environment: &str, group: &str| {
            let tags = [
                (tag::OWNER, owner),
                (tag::ENVIRONMENT, environment),
                (tag::GROUP, group),
            ];
            let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Tags::from(tags)
        };
        let others: [(String, Tags); 4] = [
            ("shop-dev-batch".into(), provider("f-1", "dev", "batch")),
            ("shop-dev-a".into(), provider("f-2", "dev", "a")),
            ("shop-dev-b".into(), provider("f-1", "prod", "b")),
            ("renamed".into(), provider("f-1", "dev", "c")),
        ];
        let removed = removed_groups(&desired, others, |group| &group.capacity_provider.name);
        assert_eq!(removed.keys().collect::<Vec<_>>(), ["batch"]);
        let in_file = Desired {
            groups: removed.into_values().collect(),
            ..desired
        };
        let again = [("shop-dev-batch".into(), provider("f-1", "dev", "batch"))];
        let none = removed_groups(&in_file, again, |group| &group.capacity_provider.name);
        assert_eq!(none.len(), 0);
    }
}
