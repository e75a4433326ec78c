//! The second round: what needs a call for each thing that was found to be ours.
//!
//! Scaling policies and alarms are looked for only where there could be any: not of groups that ECS
//! scales and is to scale. Alarms do not carry their tags, so that a third round asks those that were
//! found for them.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    PARALLEL, present,
    reads::{Reading, Reads},
};
use crate::{
    cloud::{CallError, Cloud},
    desired::{self, Desired, Hook, ServiceRole},
    inventory::{
        Alarm, Group, Inventory, LaunchTemplate, Presence, ScalingPolicy, Schedule, Template,
        Workload,
    },
    plan::Goal,
    spec::Direction,
};

/// What the second round finds.
pub(super) struct Details {
    missing_service_roles: Vec<ServiceRole>,
    workload: Workload,
    bucket: Option<(bool, Option<String>)>,
    groups: BTreeMap<String, GroupDetails>,
}

pub(super) async fn details(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    reading: Reading,
    inventory: &Inventory,
) -> Result<Details, CallError> {
    let cluster = inventory.cluster.owned().is_some() && goal == Goal::Down;
    let found = &inventory.groups;
    let makes = |found: &Group| matches!(found.auto_scaling_group, Presence::Absent);
    let makes_cluster =
        !desired.cluster.is_adopted && matches!(inventory.cluster, Presence::Absent);
    let makes_something = goal == Goal::Up && (makes_cluster || found.values().any(makes));
    let (missing_service_roles, workload, bucket, groups) = tokio::try_join!(
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
        async {
            match (&desired.bucket.upload, inventory.bucket.owned()) {
                (Some(upload), Some(_)) if goal == Goal::Up => {
                    let (s3, name) = (&cloud.s3, &desired.bucket.name);
                    let read = tokio::try_join!(
                        s3.is_public_access_blocked(name),
                        s3.sha256(name, &upload.key),
                    );
                    read.map(Some)
                }
                _ => Ok(None),
            }
        },
        details_of_all(cloud, desired, goal, reading, found),
    )?;
    Ok(Details {
        missing_service_roles,
        workload,
        bucket,
        groups,
    })
}

impl Details {
    pub(super) fn put_into(self, inventory: &mut Inventory) {
        inventory.missing_service_roles = self.missing_service_roles;
        if let Presence::Owned(cluster) = &mut inventory.cluster {
            cluster.workload = self.workload;
        }
        if let Presence::Owned(bucket) = &mut inventory.bucket
            && let Some((is_public_access_blocked, object)) = self.bucket
        {
            bucket.is_public_access_blocked = is_public_access_blocked;
            bucket.object = object;
        }
        put(self.groups, &mut inventory.groups);
    }
}

pub(super) fn put(details: BTreeMap<String, GroupDetails>, groups: &mut BTreeMap<String, Group>) {
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
pub(super) struct GroupDetails {
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

pub(super) async fn details_of_all(
    cloud: &Cloud,
    desired: &Desired,
    goal: Goal,
    reading: Reading,
    found: &BTreeMap<String, Group>,
) -> Result<BTreeMap<String, GroupDetails>, CallError> {
    let reads = &Reads::new(cloud, desired, reading);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::{AutoScalingGroup, CapacityProvider, ProviderSettings},
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
}
