//! An independent look at every plan the tests make: what must hold of any plan, whatever made it.

use std::collections::BTreeSet;

use super::{
    AlarmStep, AutoScalingStep, BucketStep, Ec2Step, EcsStep, Goal, IamStep, ParameterStep, Plan,
    Step,
};
use crate::{
    desired::Desired,
    inventory::{Inventory, Presence},
};

/// Everything wrong with a plan.
pub(super) fn check(plan: &Plan, desired: &Desired, inventory: &Inventory) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, planned) in plan.steps.iter().enumerate() {
        if planned.after.iter().any(|before| *before >= index) {
            wrong.push(format!("{} waits for a later step", planned.step.title()));
        }
        wrong.extend(about_clusters(&planned.step, desired, inventory));
        let mut earlier = plan.steps[..index].iter();
        if let Some(name) = touched(&planned.step)
            && !owned_names(desired, inventory).contains(name)
            && !earlier.any(|earlier| created(&earlier.step) == Some(name))
        {
            wrong.push(format!("{} touches what is not ours", planned.step.title()));
        }
        if plan.goal == Goal::Up
            && planned.step.title().starts_with("delete ")
            && !matches!(planned.step, Step::Iam(IamStep::DeleteRolePolicy { .. }))
        {
            wrong.push(format!("{} on the way up", planned.step.title()));
        }
    }
    for (earlier, later) in ORDER {
        for (index, step) in plan.steps.iter().enumerate() {
            let before = transitive(plan, index);
            for (other, candidate) in plan.steps.iter().enumerate() {
                if is(&step.step, later)
                    && is(&candidate.step, earlier)
                    && same_group(&step.step, &candidate.step, desired, inventory)
                    && !before.contains(&other)
                {
                    wrong.push(format!(
                        "{} does not wait for {}",
                        step.step.title(),
                        candidate.step.title()
                    ));
                }
            }
        }
    }
    wrong
}

/// What must not become of a cluster. An adopted one keeps all that it has; on whosever list of capacity
/// providers, none but ours are taken off it.
fn about_clusters(step: &Step, desired: &Desired, inventory: &Inventory) -> Option<String> {
    let adopted = desired.cluster.is_adopted;
    let named = |cluster: &String| *cluster == desired.cluster.name;
    let wrong = match step {
        Step::Ecs(
            EcsStep::CreateCluster { name: cluster, .. }
            | EcsStep::UpdateCluster { name: cluster, .. }
            | EcsStep::DeleteCluster { name: cluster }
            | EcsStep::DeleteService { cluster, .. }
            | EcsStep::StopTasks { cluster, .. }
            | EcsStep::DeregisterContainerInstances { cluster },
        ) => adopted || !named(cluster),
        Step::Ecs(EcsStep::PutClusterCapacityProviders {
            cluster,
            add,
            remove,
            default_strategy,
        }) => {
            let owned = owned_names(desired, inventory);
            let groups = desired.groups.iter();
            let ours = groups.map(|group| &group.capacity_provider.name);
            let wanted: Vec<&String> = ours.chain(&desired.cluster.more_providers).collect();
            !named(cluster)
                || (adopted && default_strategy.is_some())
                || !remove.iter().all(|name| owned.contains(name.as_str()))
                || !add.iter().all(|name| wanted.contains(&name))
        }
        Step::AutoScaling(AutoScalingStep::Empty { cluster, .. }) => !named(cluster),
        Step::Tag { resource, .. } => {
            let given = inventory.given_cluster.as_ref();
            given.is_some_and(|given| resource.name() == given.arn)
        }
        Step::Alarm(_)
        | Step::Bucket(_)
        | Step::Iam(_)
        | Step::Ec2(_)
        | Step::AutoScaling(_)
        | Step::Ecs(_)
        | Step::Parameter(_) => false,
    };
    wrong.then(|| format!("{} of a cluster that is not ours", step.title()))
}

/// By the beginnings of titles: what must come before what, within a group or for the cluster.
const ORDER: &[(&str, &str)] = &[
    ("create the service-linked role", "create cluster"),
    (
        "create the service-linked role",
        "create auto scaling group",
    ),
    ("create role", "set policy"),
    ("create role", "put role into"),
    ("create launch template shop-dev-web", "create bucket"),
    ("create bucket", "block public access"),
    ("block public access", "send "),
    ("send ", "create auto scaling group"),
    ("send ", "update auto scaling group"),
    ("delete auto scaling group", "delete bucket"),
    ("delete bucket", "delete launch template"),
    ("create security group", "create launch template"),
    ("create launch template", "create auto scaling group"),
    ("put role into", "create auto scaling group"),
    ("create auto scaling group", "create capacity provider"),
    ("create capacity provider", "set capacity providers"),
    ("create cluster", "set capacity providers"),
    ("set capacity providers", "start the first node"),
    ("set policy", "start the first node"),
    ("write parameter", "start the first node"),
    ("start the first node", "see the first node"),
    ("see the first node", "set warm pool"),
    ("see the first node", "set schedule"),
    ("see the first node", "set scaling policy"),
    ("set scaling policy", "set alarm"),
    ("update capacity provider", "set scaling policy"),
    ("remove alarm", "remove scaling policy"),
    ("remove alarm", "update capacity provider"),
    ("remove scaling policy", "update capacity provider"),
    ("protect nodes", "update auto scaling group"),
    ("remove alarm", "empty auto scaling group"),
    ("remove warm pool", "empty auto scaling group"),
    ("remove schedule", "empty auto scaling group"),
    ("delete service", "empty auto scaling group"),
    ("stop ", "empty auto scaling group"),
    ("empty auto scaling group", "set capacity providers"),
    ("set capacity providers", "delete capacity provider"),
    ("delete capacity provider", "delete auto scaling group"),
    ("delete auto scaling group", "delete launch template"),
    ("delete auto scaling group", "delete security group"),
    ("empty auto scaling group", "deregister"),
    ("delete capacity provider", "delete cluster"),
    ("delete auto scaling group", "delete instance profile"),
    ("take role", "delete instance profile"),
    ("take role", "delete role"),
    ("delete policy", "delete role"),
    ("deregister", "delete cluster"),
];

fn is(step: &Step, beginning: &str) -> bool {
    step.title().starts_with(beginning)
}

/// Whether both are of one group, or one of them is the cluster's.
fn same_group(a: &Step, b: &Step, desired: &Desired, inventory: &Inventory) -> bool {
    let group = |step: &Step| {
        let title = step.title();
        desired
            .groups
            .iter()
            .chain(&inventory.removed)
            .position(|group| title.split(['-', '/', ' ']).any(|part| part == group.name))
    };
    match (group(a), group(b)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn transitive(plan: &Plan, index: usize) -> BTreeSet<usize> {
    let mut before = BTreeSet::new();
    let mut open = vec![index];
    while let Some(next) = open.pop() {
        for earlier in &plan.steps[next].after {
            if before.insert(*earlier) {
                open.push(*earlier);
            }
        }
    }
    before
}

/// What a step changes or deletes; what it creates AWS refuses where something is.
fn touched(step: &Step) -> Option<&str> {
    match step {
        Step::Iam(step) => of_iam(step),
        Step::Ec2(
            Ec2Step::DeleteSecurityGroup { name, .. }
            | Ec2Step::RevokeIngress { name, .. }
            | Ec2Step::CreateLaunchTemplateVersion { name, .. }
            | Ec2Step::DeleteLaunchTemplate { name },
        )
        | Step::Parameter(
            ParameterStep::Delete { name }
            | ParameterStep::Put {
                name, tags: None, ..
            },
        )
        | Step::Alarm(
            AlarmStep::Delete { name }
            | AlarmStep::Put {
                name, tags: None, ..
            },
        )
        | Step::Ecs(
            EcsStep::DeleteCluster { name }
            | EcsStep::UpdateCluster { name, .. }
            | EcsStep::DeleteCapacityProvider { name }
            | EcsStep::UpdateCapacityProvider { name, .. }
            | EcsStep::DeleteService { cluster: name, .. }
            | EcsStep::StopTasks { cluster: name, .. }
            | EcsStep::DeregisterContainerInstances { cluster: name },
        ) => Some(name),
        Step::AutoScaling(step) => of_auto_scaling(step),
        Step::Bucket(
            BucketStep::BlockPublicAccess { name }
            | BucketStep::Upload { bucket: name, .. }
            | BucketStep::Delete { name },
        ) => Some(name),
        Step::Tag { resource, .. } => Some(resource.name()),
        // A cluster's list is looked at by `about_clusters`.
        Step::Ec2(_)
        | Step::Ecs(_)
        | Step::Parameter(_)
        | Step::Alarm(_)
        | Step::Bucket(BucketStep::Create { .. }) => None,
    }
}

fn of_iam(step: &IamStep) -> Option<&str> {
    match step {
        IamStep::UpdateTrustPolicy { role: name, .. }
        | IamStep::SetPermissionsBoundary { role: name, .. }
        | IamStep::AttachRolePolicy { role: name, .. }
        | IamStep::PutRolePolicy { role: name, .. }
        | IamStep::DeleteRolePolicy { role: name, .. }
        | IamStep::DetachRolePolicy { role: name, .. }
        | IamStep::DeleteRole { name }
        | IamStep::AddRoleToInstanceProfile { profile: name, .. }
        | IamStep::RemoveRoleFromInstanceProfile { profile: name, .. }
        | IamStep::DeleteInstanceProfile { name } => Some(name),
        IamStep::CreateServiceLinkedRole { .. }
        | IamStep::CreateRole { .. }
        | IamStep::CreateInstanceProfile { .. } => None,
    }
}

fn of_auto_scaling(step: &AutoScalingStep) -> Option<&str> {
    match step {
        AutoScalingStep::Create(_) => None,
        AutoScalingStep::Update { name, .. }
        | AutoScalingStep::Delete { name }
        | AutoScalingStep::PutHook { group: name, .. }
        | AutoScalingStep::CollectMetrics { group: name, .. }
        | AutoScalingStep::PutWarmPool { group: name, .. }
        | AutoScalingStep::DeleteWarmPool { group: name }
        | AutoScalingStep::PutSchedule { group: name, .. }
        | AutoScalingStep::DeleteSchedule { group: name, .. }
        | AutoScalingStep::PutScalingPolicy { group: name, .. }
        | AutoScalingStep::DeleteScalingPolicy { group: name, .. }
        | AutoScalingStep::SetProtection { group: name, .. }
        | AutoScalingStep::StartFirstNode { group: name }
        | AutoScalingStep::AwaitFirstNode { group: name }
        | AutoScalingStep::TryRevision { group: name, .. }
        | AutoScalingStep::SpreadRevision { group: name, .. }
        | AutoScalingStep::Empty { group: name, .. } => Some(name),
    }
}

/// What a step makes.
fn created(step: &Step) -> Option<&str> {
    match step {
        Step::Iam(
            IamStep::CreateRole { name, .. } | IamStep::CreateInstanceProfile { name, .. },
        )
        | Step::Ec2(
            Ec2Step::CreateSecurityGroup { name, .. } | Ec2Step::CreateLaunchTemplate { name, .. },
        )
        | Step::Ecs(
            EcsStep::CreateCluster { name, .. } | EcsStep::CreateCapacityProvider { name, .. },
        )
        | Step::Parameter(ParameterStep::Put {
            name,
            tags: Some(_),
            ..
        })
        | Step::Alarm(AlarmStep::Put {
            name,
            tags: Some(_),
            ..
        })
        | Step::Bucket(BucketStep::Create { name, .. }) => Some(name),
        Step::AutoScaling(AutoScalingStep::Create(group)) => Some(&group.name),
        Step::Iam(_)
        | Step::Ec2(_)
        | Step::AutoScaling(_)
        | Step::Ecs(_)
        | Step::Parameter(_)
        | Step::Alarm(_)
        | Step::Bucket(_)
        | Step::Tag { .. } => None,
    }
}

fn owned_names<'a>(desired: &'a Desired, inventory: &'a Inventory) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let mut add = |ours: bool, name: &'a String| {
        if ours {
            names.insert(name.as_str());
        }
    };
    add(inventory.cluster.is_ours(), &desired.cluster.own_name);
    add(inventory.bucket.is_ours(), &desired.bucket.name);
    // Some are tagged by ARN or id.
    if let Some(cluster) = inventory.cluster.owned() {
        add(true, &cluster.arn);
    }
    for group in desired.groups.iter().chain(&inventory.removed) {
        let Some(found) = inventory.groups.get(&group.name) else {
            continue;
        };
        add(found.role.is_ours(), &group.role.name);
        add(found.instance_profile.is_ours(), &group.instance_profile);
        add(found.security_group.is_ours(), &group.security_group.name);
        add(found.launch_template.is_ours(), &group.launch_template.name);
        add(
            found.auto_scaling_group.is_ours(),
            &group.auto_scaling_group.name,
        );
        add(
            found.capacity_provider.is_ours(),
            &group.capacity_provider.name,
        );
        add(found.parameter.is_ours(), &group.parameter.name);
        if let Some(provider) = found.capacity_provider.owned() {
            add(true, &provider.arn);
        }
        if let Some(firewall) = found.security_group.owned() {
            add(true, &firewall.id);
        }
        for alarm in found.alarms.values().filter_map(Presence::owned) {
            add(true, &alarm.arn);
        }
        for (direction, name) in &group.alarms {
            add(found.alarm(*direction).is_ours(), name);
        }
    }
    names
}
