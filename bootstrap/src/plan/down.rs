//! The way to nothing: workload first, then nodes while ECS still knows them, then what they stood
//! on.
//!
//! The capacity provider stays attached until its group is empty: detached earlier, ECS's own
//! draining hook is orphaned and holds each instance for an hour.

use super::{
    AlarmStep, AutoScalingStep, BucketStep, Builder, Conflict, Ec2Step, EcsStep, Effect, Goal,
    IamStep, Mark, ParameterStep, Plan, Step, Steps, TASKS, conflicts, describe,
};
use crate::{
    desired::{self, Desired},
    inventory::{Cluster, Group, Inventory, Presence, StrategyItem},
    spec::Direction,
};

pub(super) fn plan(desired: &Desired, inventory: &Inventory) -> Result<Plan, Vec<Conflict>> {
    let conflicts = conflicts::find_down(desired, inventory);
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut down = Down {
        desired,
        inventory,
        builder: Builder::new(Goal::Down),
    };
    let groups: Vec<(&desired::Group, &Group)> = all(desired, inventory)
        .filter_map(|group| Some((group, inventory.groups.get(&group.name)?)))
        .collect();

    let workload = down.workload();
    down.tenants();
    let emptied: Steps = groups
        .iter()
        .flat_map(|(group, found)| down.empty(group, found, &workload))
        .collect();
    let detached = down.detach(&emptied);
    let mut gone = Steps::new();
    let mut deleted = Steps::new();
    let mut rest = Vec::new();
    for (group, found) in &groups {
        let removed = down.group(group, found, &emptied, &detached);
        gone.extend(removed.nodes);
        deleted.extend(removed.auto_scaling_group);
        rest.push(removed.rest);
    }
    let bucket = down.bucket(deleted);
    for ((group, found), rest) in groups.iter().zip(rest) {
        down.launch_template(group, found, &[&rest[..], &bucket].concat());
    }
    down.cluster(&gone);
    down.builder.line(
        Mark::Adopted,
        "vpc",
        &desired.network.vpc_id,
        "kept, never deleted",
    );
    Ok(down.builder.plan)
}

/// The file's groups and those that left it.
pub(super) fn all<'a>(
    desired: &'a Desired,
    inventory: &'a Inventory,
) -> impl Iterator<Item = &'a desired::Group> {
    desired.groups.iter().chain(&inventory.removed)
}

struct Down<'a> {
    desired: &'a Desired,
    inventory: &'a Inventory,
    builder: Builder,
}

/// What takes a group away.
struct Removed {
    /// The steps after which none of its nodes can be in the cluster any more.
    nodes: Steps,
    /// ... after which it launches nothing.
    auto_scaling_group: Steps,
    /// ... after which its launch template may go.
    rest: Steps,
}

impl Down<'_> {
    fn workload(&mut self) -> Steps {
        let Some(cluster) = self.inventory.cluster.owned() else {
            return Steps::new();
        };
        let name = &self.desired.cluster.name;
        let mut steps = Steps::new();
        for service in &cluster.workload.services {
            self.builder.line(Mark::Delete, "service", service, "");
            let delete = EcsStep::DeleteService {
                cluster: name.clone(),
                service: service.clone(),
            };
            steps.push(self.builder.step(delete, []));
        }
        let tasks = &cluster.workload.standalone_tasks;
        if !tasks.is_empty() {
            self.builder.line(
                Mark::Delete,
                TASKS,
                name,
                format!("{} that no service keeps", tasks.len()),
            );
            let stop = EcsStep::StopTasks {
                cluster: name.clone(),
                tasks: tasks.clone(),
            };
            steps.push(self.builder.step(stop, []));
        }
        steps
    }

    /// They leave with the nodes, as in any drain; what keeps them stays.
    fn tenants(&mut self) {
        if let Some(tasks) = describe::tenants(&self.inventory.tenancy) {
            let name = &self.desired.cluster.name;
            let stays = "leave with the nodes; no service is deleted or scaled".to_owned();
            let details = vec![tasks, stays];
            self.builder
                .change(Mark::Adopted, TASKS, name, details, Effect::None);
        }
    }

    fn empty(&mut self, group: &desired::Group, found: &Group, after: &[usize]) -> Option<usize> {
        let name = &group.auto_scaling_group.name;
        let mut after = after.to_vec();
        // One that comes while nodes leave would launch others.
        if let Some(asg) = found.auto_scaling_group.owned() {
            for schedule in asg.schedules.keys() {
                let remove = AutoScalingStep::DeleteSchedule {
                    group: name.clone(),
                    name: schedule.clone(),
                };
                after.push(self.builder.step(remove, []));
            }
        }
        // The policies that they set off go with the group.
        for direction in Direction::ALL {
            let name = group.alarm(direction);
            let presence = found.alarm(direction);
            after.extend(self.delete(
                "alarm",
                name,
                presence,
                |_| AlarmStep::Delete {
                    name: name.to_owned(),
                },
                Steps::new(),
            ));
        }
        // Or the pool would go on filling up beside a group that shrinks.
        if found.auto_scaling_group.owned()?.warm_pool.is_ours() {
            let detail = "with the nodes in it";
            self.builder.line(Mark::Delete, "warm-pool", name, detail);
            let remove = AutoScalingStep::DeleteWarmPool {
                group: name.clone(),
            };
            after.push(self.builder.step(remove, []));
        }
        let empty = AutoScalingStep::Empty {
            group: name.clone(),
            cluster: self.desired.cluster.name.clone(),
            drain: group.drain,
        };
        Some(self.builder.step(empty, after))
    }

    fn detach(&mut self, emptied: &[usize]) -> Steps {
        let Some(cluster) = self.inventory.standing_cluster() else {
            return Steps::new();
        };
        let is_ours = |name: &String| is_our_provider(name, self.desired, self.inventory);
        let providers = cluster.providers.iter().cloned();
        let ours: Vec<String> = providers.filter(is_ours).collect();
        if ours.is_empty() {
            return Steps::new();
        }
        let items = cluster.default_strategy.iter();
        let others = items.filter(|item| !is_ours(&item.provider));
        let others: Vec<StrategyItem> = others.cloned().collect();
        let put = EcsStep::PutClusterCapacityProviders {
            cluster: self.desired.cluster.name.clone(),
            add: Vec::new(),
            remove: ours,
            default_strategy: (others != cluster.default_strategy).then_some(others),
        };
        vec![self.builder.step(put, emptied.iter().copied())]
    }

    /// After all that launches from it, and before the launch templates, whose tag may be all that tells of
    /// it.
    fn bucket(&mut self, after: Steps) -> Steps {
        let name = &self.desired.bucket.name;
        self.delete(
            "bucket",
            name,
            &self.inventory.bucket,
            |_| BucketStep::Delete { name: name.clone() },
            after,
        )
    }

    fn launch_template(&mut self, group: &desired::Group, found: &Group, after: &[usize]) {
        self.delete(
            "launch-template",
            &group.launch_template.name,
            &found.launch_template,
            |_| Ec2Step::DeleteLaunchTemplate {
                name: group.launch_template.name.clone(),
            },
            after.to_vec(),
        );
    }

    /// All of it but its launch template.
    fn group(
        &mut self,
        group: &desired::Group,
        found: &Group,
        emptied: &[usize],
        detached: &[usize],
    ) -> Removed {
        let provider = self.delete(
            "capacity-provider",
            &group.capacity_provider.name,
            &found.capacity_provider,
            |_| EcsStep::DeleteCapacityProvider {
                name: group.capacity_provider.name.clone(),
            },
            [emptied, detached].concat(),
        );
        let before = self.builder.plan.lines.len();
        let asg = self.delete(
            "auto-scaling-group",
            &group.auto_scaling_group.name,
            &found.auto_scaling_group,
            |_| AutoScalingStep::Delete {
                name: group.auto_scaling_group.name.clone(),
            },
            [&provider, emptied].concat(),
        );
        let protection = found.auto_scaling_group.owned();
        let protection = protection.and_then(|asg| asg.policies.protection());
        if let (Some(line), Some(protection)) =
            (self.builder.plan.lines.get_mut(before), protection)
        {
            line.details = vec![format!("deletion protection {protection} is taken off")];
        }
        if let Some(asg_found) = found.auto_scaling_group.owned()
            && !asg_found.instances.is_empty()
        {
            self.builder.line(
                Mark::Delete,
                "nodes",
                &group.auto_scaling_group.name,
                format!("{} drained and terminated", asg_found.instances.len()),
            );
        }
        let mut rest = self.identity(group, found, &asg);
        rest.extend(self.delete(
            "parameter",
            &group.parameter.name,
            &found.parameter,
            |_| ParameterStep::Delete {
                name: group.parameter.name.clone(),
            },
            asg.clone(),
        ));
        rest.extend(self.delete(
            "security-group",
            &group.security_group.name,
            &found.security_group,
            |found| Ec2Step::DeleteSecurityGroup {
                name: group.security_group.name.clone(),
                id: found.map_or_else(String::new, |group| group.id.clone()),
            },
            asg.clone(),
        ));
        // Of a group that left the file nothing else tells any more that it is there.
        let has_left = self
            .inventory
            .removed
            .iter()
            .any(|one| one.name == group.name);
        let rest = if has_left {
            [&asg, &rest[..]].concat()
        } else {
            asg.clone()
        };
        // A group of size 0 that nothing scales starts nothing, and may take minutes to go, as the cluster may.
        let nodes = match found.auto_scaling_group {
            Presence::Owned(_) => [&provider, emptied].concat(),
            Presence::Absent | Presence::Leaving | Presence::Foreign(_) => {
                [&provider, &asg[..]].concat()
            }
        };
        Removed {
            nodes,
            auto_scaling_group: asg,
            rest,
        }
    }

    /// Role and instance profile, each emptied before it goes.
    fn identity(&mut self, group: &desired::Group, found: &Group, asg: &[usize]) -> Steps {
        let role = &group.role.name;
        let mut removed = Steps::new();
        if let Some(profile) = found.instance_profile.owned() {
            for member in &profile.roles {
                let remove = IamStep::RemoveRoleFromInstanceProfile {
                    profile: group.instance_profile.clone(),
                    role: member.clone(),
                };
                removed.push(self.builder.step(remove, asg.iter().copied()));
            }
        }
        let after = [asg, &removed].concat();
        let mut gone = self.delete(
            "instance-profile",
            &group.instance_profile,
            &found.instance_profile,
            |_| IamStep::DeleteInstanceProfile {
                name: group.instance_profile.clone(),
            },
            after.clone(),
        );
        let mut cleared = after;
        if let Some(found) = found.role.owned() {
            for policy in found.inline_policies.keys() {
                let delete = IamStep::DeleteRolePolicy {
                    role: role.clone(),
                    policy: policy.clone(),
                };
                cleared.push(self.builder.step(delete, asg.iter().copied()));
            }
            for arn in &found.attached_policies {
                let detach = IamStep::DetachRolePolicy {
                    role: role.clone(),
                    arn: arn.clone(),
                };
                cleared.push(self.builder.step(detach, asg.iter().copied()));
            }
        }
        if let (Some(name), Some(_)) = (&group.given_role, &found.given_role) {
            self.builder
                .line(Mark::Adopted, "role", name, "kept, never deleted");
        }
        gone.extend(self.delete(
            "role",
            role,
            &found.role,
            |_| IamStep::DeleteRole { name: role.clone() },
            cleared,
        ));
        gone
    }

    fn cluster(&mut self, gone: &[usize]) {
        let name = &self.desired.cluster.name;
        if self.desired.cluster.is_adopted {
            let given = self.inventory.given_cluster.as_ref();
            let detail = given.map_or("is not there".to_owned(), |given| {
                let is_ours = |name: &str| is_our_provider(name, self.desired, self.inventory);
                describe::kept_cluster(given, "never deleted", is_ours)
            });
            return self.builder.line(Mark::Adopted, "cluster", name, detail);
        }
        let mut after = gone.to_vec();
        if self.inventory.cluster.owned().is_some() {
            let deregister = EcsStep::DeregisterContainerInstances {
                cluster: name.clone(),
            };
            after = vec![self.builder.step(deregister, gone.iter().copied())];
        }
        let detail = self.inventory.cluster.owned().map(workload);
        let before = self.builder.plan.lines.len();
        self.delete(
            "cluster",
            name,
            &self.inventory.cluster,
            |_| EcsStep::DeleteCluster { name: name.clone() },
            after,
        );
        if let (Some(line), Some(detail)) = (self.builder.plan.lines.get_mut(before), detail) {
            line.details = vec![detail];
        }
    }

    /// Deletes what is ours and names what is not; what is already leaving is waited for.
    fn delete<T, S: Into<Step>>(
        &mut self,
        kind: &'static str,
        name: &str,
        presence: &Presence<T>,
        step: impl FnOnce(Option<&T>) -> S,
        after: Steps,
    ) -> Steps {
        let detail = match presence {
            Presence::Absent => return Steps::new(),
            Presence::Foreign(why) => {
                let detail = format!("kept: {why}");
                self.builder.line(Mark::Adopted, kind, name, detail);
                return Steps::new();
            }
            Presence::Owned(_) => "",
            Presence::Leaving => "is being deleted",
        };
        self.builder.line(Mark::Delete, kind, name, detail);
        vec![self.builder.step(step(presence.owned()), after)]
    }
}

/// Whether a capacity provider of this name is there and ours.
pub(super) fn is_our_provider(name: &str, desired: &Desired, inventory: &Inventory) -> bool {
    all(desired, inventory).any(|group| {
        let found = inventory.groups.get(&group.name);
        group.capacity_provider.name == *name
            && found.is_some_and(|found| found.capacity_provider.is_ours())
    })
}

fn workload(cluster: &Cluster) -> String {
    let workload = &cluster.workload;
    if workload.services.is_empty() && workload.tasks == 0 && workload.container_instances == 0 {
        return String::new();
    }
    format!(
        "with {} services, {} tasks, {} container instances",
        workload.services.len(),
        workload.tasks,
        workload.container_instances
    )
}
