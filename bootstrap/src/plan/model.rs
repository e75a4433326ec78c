//! An AWS small enough to read: an inventory that steps change. It refuses what AWS refuses, so a
//! plan in a wrong order fails in it.

use std::collections::{BTreeMap, BTreeSet};

use fleet_agent_config::{Live, VERSION};
use serde_json::json;

use super::{
    AlarmStep, AutoScalingStep, BucketStep, Ec2Step, EcsStep, GroupChange, IamStep, ParameterStep,
    PolicyUse, Step, Taggable, TemplateUse, Version,
};
use crate::{
    desired::{
        self, AutoScalingGroup as WantedGroup, CapacityProvider as WantedProvider, Desired, Hook,
        Identity, Image, Network, ServiceRole, Transition,
    },
    inventory::{
        self, Alarm, AutoScalingGroup, Bucket, CapacityProvider, Cluster, ClusterSettings, Group,
        Instance, InstanceProfile, Inventory, LaunchTemplate, Parameter, Presence,
        ProviderSettings, Role, ScalingPolicy, SecurityGroup, SecurityGroupRef, Subnet, Tags,
        Template, Tenancy,
    },
    spec,
};

/// The SSM parameter that names the image.
pub(crate) const IMAGE: &str = "/aws/image";

/// An environment `dev` of fleet `shop` with these groups, each resource with a name of its own.
pub(crate) fn desired(groups: &[&str]) -> Desired {
    environment("dev", groups)
}

/// An environment of fleet `shop`.
pub(super) fn environment(environment: &str, groups: &[&str]) -> Desired {
    let tags = |group: Option<&str>| -> Tags {
        let mut tags: Tags = [
            ("fleet:name", "shop"),
            ("fleet:environment", environment),
            ("fleet:owner", "f-1"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        if let Some(group) = group {
            tags.insert("fleet:group".into(), group.into());
        }
        tags
    };
    Desired {
        identity: Identity {
            fleet: "shop".into(),
            environment: environment.into(),
            owner: "f-1".into(),
            region: "eu-central-1".into(),
        },
        network: Network {
            vpc_id: "vpc-1".into(),
            subnet_ids: vec!["subnet-a".into(), "subnet-b".into()],
        },
        cluster: desired::Cluster {
            name: format!("shop-{environment}"),
            is_adopted: false,
            own_name: format!("shop-{environment}"),
            tags: tags(None),
            container_insights: None,
            execute_command_logging: None,
            more_providers: Vec::new(),
            default_strategy: None,
        },
        source: None,
        bucket: desired::Bucket {
            name: format!("fleet-shop-{environment}-bucket"),
            tags: tags(None),
            upload: None,
        },
        groups: groups
            .iter()
            .map(|group| {
                let name = |kind: &str| format!("shop-{environment}-{group}-{kind}");
                desired::Group {
                    name: (*group).to_owned(),
                    tags: tags(Some(group)),
                    role: desired::Role {
                        name: name("role"),
                        trust_policy: json!({"trust": "ec2"}),
                        permissions_boundary: None,
                        managed_policies: Vec::new(),
                        policy_name: "fleet".into(),
                        policy_template: json!({"allow": format!("arn:ACCOUNT:{group}")}),
                    },
                    given_role: None,
                    instance_profile: name("profile"),
                    security_group: desired::SecurityGroup {
                        name: name("sg"),
                        description: "nodes".into(),
                    },
                    launch_template: desired::LaunchTemplate {
                        name: name("lt"),
                        image: Image::Parameter(IMAGE.into()),
                        newest_image: false,
                        instance_type: "m6i.large".into(),
                        root_volume: spec::Volume::default(),
                        docker_volume: None,
                        cpu_credits: None,
                        detailed_monitoring: false,
                        key_pair: None,
                        security_groups: Vec::new(),
                        user_data: b"#cloud-config\n{}".to_vec(),
                        settings: desired::Settings::default(),
                        instance_tags: tags(Some(group)),
                    },
                    auto_scaling_group: WantedGroup {
                        name: name("asg"),
                        instance_types: vec!["m6i.large".into()],
                        spot: None,
                        metrics: false,
                        max_lifetime_days: None,
                        deletion_protection: spec::DeletionProtection::default(),
                        zone_distribution: spec::ZoneDistribution::default(),
                        warm_pool: None,
                        schedules: BTreeMap::new(),
                        min: 1,
                        max: 4,
                        desired: 2,
                        hooks: vec![
                            Hook {
                                name: "fleet-launch".into(),
                                transition: Transition::Launching,
                                timeout_seconds: 600,
                            },
                            Hook {
                                name: "fleet-drain".into(),
                                transition: Transition::Terminating,
                                timeout_seconds: 300,
                            },
                        ],
                    },
                    capacity_provider: WantedProvider {
                        name: name("cp"),
                        instance_warmup_seconds: 600,
                    },
                    scaling: spec::Scaling::Managed {
                        target_capacity: 100,
                    },
                    alarms: spec::Direction::ALL
                        .map(|direction| (direction, name(desired::scaling_policy(direction))))
                        .into(),
                    parameter: desired::Parameter {
                        name: format!("/fleet/shop/{environment}/{group}/agent"),
                        live: Live {
                            version: VERSION,
                            ..Live::default()
                        },
                    },
                    drain: desired::Drain {
                        deadline_seconds: 1_800,
                        sidecars_seconds: 40,
                    },
                }
            })
            .collect(),
    }
}

/// An account that holds the network and nothing else.
pub(crate) fn empty(desired: &Desired) -> Inventory {
    let zone = |(index, id): (usize, &String)| {
        let subnet = Subnet {
            vpc_id: "vpc-1".into(),
            availability_zone: format!("eu-central-1{}", ["a", "b", "c"][index % 3]),
            free_addresses: 250,
            gives_public_addresses: false,
        };
        (id.clone(), subnet)
    };
    Inventory {
        account: "111122223333".into(),
        missing_service_roles: vec![ServiceRole::Ecs, ServiceRole::AutoScaling],
        subnets: desired
            .network
            .subnet_ids
            .iter()
            .enumerate()
            .map(zone)
            .collect(),
        images: [(Image::Parameter(IMAGE.into()), image("ami-1"))].into(),
        cluster: Presence::Absent,
        given_cluster: None,
        tenancy: Tenancy::default(),
        bucket: Presence::Absent,
        groups: desired
            .groups
            .iter()
            .map(|group| (group.name.clone(), Group::default()))
            .collect(),
        removed: Vec::new(),
    }
}

/// Somebody else's cluster, with these capacity providers on it.
pub(super) fn others_cluster(providers: &[&str]) -> Cluster {
    Cluster {
        arn: "arn:cluster/main".into(),
        status: "ACTIVE".into(),
        tags: [("team".to_owned(), "platform".to_owned())].into(),
        settings: ClusterSettings {
            container_insights: Some("enabled".into()),
            ..ClusterSettings::default()
        },
        providers: providers.iter().map(|name| (*name).to_owned()).collect(),
        ..Cluster::default()
    }
}

/// The environment with somebody else's cluster in the place of its own.
pub(super) fn adopting(desired: &mut Desired) {
    "main".clone_into(&mut desired.cluster.name);
    desired.cluster.is_adopted = true;
}

/// An AMI that nothing is wrong with.
pub(crate) fn image(id: &str) -> inventory::Image {
    inventory::Image {
        id: id.to_owned(),
        ..inventory::Image::default()
    }
}

/// Applies one step.
///
/// # Errors
/// Where AWS would refuse it.
pub(super) fn apply(
    inventory: &mut Inventory,
    desired: &Desired,
    step: &Step,
) -> Result<(), String> {
    let mut world = World { inventory, desired };
    world.apply(step)
}

struct World<'a> {
    inventory: &'a mut Inventory,
    desired: &'a Desired,
}

impl World<'_> {
    fn apply(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Iam(step) => self.iam(step),
            Step::Ec2(step) => self.ec2(step),
            Step::AutoScaling(step) => self.auto_scaling(step),
            Step::Ecs(step) => self.ecs(step),
            Step::Parameter(step) => self.parameter(step),
            Step::Alarm(step) => self.alarm(step),
            Step::Bucket(step) => self.bucket(step),
            Step::Tag { resource, tags } => {
                if let Taggable::AutoScalingGroup(name) = resource {
                    self.asg(name)?.tags.extend(tags.clone());
                    return Ok(());
                }
                let plain = tags
                    .iter()
                    .map(|(key, tag)| (key.clone(), tag.value.clone()));
                self.tags(resource)?.extend(plain);
                Ok(())
            }
        }
    }

    fn iam(&mut self, step: &IamStep) -> Result<(), String> {
        match step {
            IamStep::CreateServiceLinkedRole { service } => {
                let missing = &mut self.inventory.missing_service_roles;
                missing.retain(|role| role.service() != service);
                Ok(())
            }
            IamStep::CreateRole {
                name,
                trust_policy,
                permissions_boundary,
                tags,
            } => {
                let role = Role {
                    tags: tags.clone(),
                    trust_policy: trust_policy.clone(),
                    permissions_boundary: permissions_boundary.clone(),
                    ..Role::default()
                };
                create(&mut self.group(|g| g.role.name == *name)?.role, role)
            }
            IamStep::UpdateTrustPolicy { role, trust_policy } => {
                self.role(role)?.trust_policy = trust_policy.clone();
                Ok(())
            }
            IamStep::SetPermissionsBoundary { role, arn } => {
                self.role(role)?.permissions_boundary.clone_from(arn);
                Ok(())
            }
            IamStep::AttachRolePolicy { role, arn } => {
                self.role(role)?.attached_policies.push(arn.clone());
                Ok(())
            }
            IamStep::PutRolePolicy {
                role,
                policy,
                document,
            } => {
                let policies = &mut self.role(role)?.inline_policies;
                policies.insert(policy.clone(), Some(document.clone()));
                Ok(())
            }
            IamStep::DeleteRolePolicy { role, policy } => {
                let removed = self.role(role)?.inline_policies.remove(policy);
                removed.map(|_| ()).ok_or("NoSuchEntity".into())
            }
            IamStep::DetachRolePolicy { role, arn } => {
                self.role(role)?
                    .attached_policies
                    .retain(|other| other != arn);
                Ok(())
            }
            IamStep::DeleteRole { name } => {
                let in_profile = self.inventory.groups.values().any(|g| {
                    g.instance_profile
                        .owned()
                        .is_some_and(|p| p.roles.contains(name))
                });
                let role = self.role(name)?;
                if in_profile
                    || !role.inline_policies.is_empty()
                    || !role.attached_policies.is_empty()
                {
                    return Err(format!("DeleteConflict: {name}"));
                }
                self.group(|g| g.role.name == *name)?.role = Presence::Absent;
                Ok(())
            }
            IamStep::CreateInstanceProfile { name, tags } => {
                let profile = InstanceProfile {
                    tags: tags.clone(),
                    roles: Vec::new(),
                };
                create(
                    &mut self
                        .group(|g| g.instance_profile == *name)?
                        .instance_profile,
                    profile,
                )
            }
            IamStep::AddRoleToInstanceProfile { profile, role } => {
                let given = self.desired.groups.iter();
                if !given
                    .filter_map(|g| g.given_role.as_ref())
                    .any(|name| name == role)
                {
                    self.role(role)?;
                }
                let profile = self.profile(profile)?;
                if !profile.roles.is_empty() {
                    return Err("LimitExceeded: one role a profile".into());
                }
                profile.roles.push(role.clone());
                Ok(())
            }
            IamStep::RemoveRoleFromInstanceProfile { profile, role } => {
                self.profile(profile)?.roles.retain(|other| other != role);
                Ok(())
            }
            IamStep::DeleteInstanceProfile { name } => {
                if !self.profile(name)?.roles.is_empty() {
                    return Err("DeleteConflict".into());
                }
                self.group(|g| g.instance_profile == *name)?
                    .instance_profile = Presence::Absent;
                Ok(())
            }
        }
    }

    fn ec2(&mut self, step: &Ec2Step) -> Result<(), String> {
        match step {
            Ec2Step::CreateSecurityGroup { name, tags, .. } => {
                let group = SecurityGroup {
                    id: format!("id-of-{name}"),
                    tags: tags.clone(),
                    ingress: Vec::new(),
                };
                create(
                    &mut self
                        .group(|g| g.security_group.name == *name)?
                        .security_group,
                    group,
                )
            }
            Ec2Step::RevokeIngress { name, rules, .. } => {
                let group = self.group(|g| g.security_group.name == *name)?;
                let group = existing(&mut group.security_group)?;
                group.ingress.retain(|rule| !rules.contains(rule));
                Ok(())
            }
            Ec2Step::DeleteSecurityGroup { name, .. } => {
                let group = self.group(|g| g.security_group.name == *name)?;
                let busy = group
                    .auto_scaling_group
                    .owned()
                    .is_some_and(|asg| !asg.instances.is_empty());
                if busy {
                    return Err("DependencyViolation".into());
                }
                group.security_group = Presence::Absent;
                Ok(())
            }
            Ec2Step::CreateLaunchTemplate {
                name,
                template,
                tags,
            } => {
                let latest = self.resolved(template)?;
                let created = LaunchTemplate {
                    tags: tags.clone(),
                    latest_version: 1,
                    latest,
                };
                create(
                    &mut self
                        .group(|g| g.launch_template.name == *name)?
                        .launch_template,
                    created,
                )
            }
            Ec2Step::CreateLaunchTemplateVersion { name, template } => {
                let latest = self.resolved(template)?;
                let found = self.group(|g| g.launch_template.name == *name)?;
                let found = existing(&mut found.launch_template)?;
                found.latest_version += 1;
                found.latest = latest;
                Ok(())
            }
            Ec2Step::DeleteLaunchTemplate { name } => {
                self.group(|g| g.launch_template.name == *name)?
                    .launch_template = Presence::Absent;
                Ok(())
            }
        }
    }

    fn auto_scaling(&mut self, step: &AutoScalingStep) -> Result<(), String> {
        match step {
            AutoScalingStep::Create(new) => {
                let version = self.version(&new.template)?;
                let group = self.group(|g| g.auto_scaling_group.name == new.name)?;
                if group
                    .instance_profile
                    .owned()
                    .is_none_or(|p| p.roles.is_empty())
                {
                    return Err("Invalid IAM Instance Profile name".into());
                }
                let asg = AutoScalingGroup {
                    arn: format!("arn:asg/{}", new.name),
                    max: new.max,
                    template_version: version,
                    mix: new.template.mix.clone(),
                    subnets: new.subnets.iter().cloned().collect(),
                    new_instances_protected: new.new_instances_protected,
                    policies: new.policies.clone(),
                    tags: new.tags.clone(),
                    hooks: new.hooks.clone(),
                    ..AutoScalingGroup::default()
                };
                create(&mut group.auto_scaling_group, asg)
            }
            AutoScalingStep::Update { name, change } => self.update_group(name, change),
            AutoScalingStep::PutHook { group, hook } => {
                let hooks = &mut self.asg(group)?.hooks;
                hooks.retain(|other| other.name != hook.name);
                hooks.push(hook.clone());
                Ok(())
            }
            AutoScalingStep::CollectMetrics { group, is_on } => {
                self.asg(group)?.metrics = *is_on;
                Ok(())
            }
            AutoScalingStep::PutWarmPool { group, pool } => {
                self.asg(group)?.warm_pool = Presence::Owned(pool.clone());
                Ok(())
            }
            AutoScalingStep::DeleteWarmPool { group } => {
                self.asg(group)?.warm_pool = Presence::Absent;
                Ok(())
            }
            AutoScalingStep::PutSchedule {
                group,
                name,
                schedule,
            } => {
                let kept = self.asg(group)?.schedules.entry(name.clone()).or_default();
                *kept = inventory::Schedule {
                    min: schedule.min.or(kept.min),
                    max: schedule.max.or(kept.max),
                    desired: schedule.desired.or(kept.desired),
                    ..schedule.clone()
                };
                Ok(())
            }
            AutoScalingStep::DeleteSchedule { group, name } => {
                let removed = self.asg(group)?.schedules.remove(name);
                removed.map(|_| ()).ok_or("no such schedule".into())
            }
            AutoScalingStep::PutScalingPolicy {
                group,
                direction,
                settings,
            } => {
                if self.is_scaled_by_ecs(group)? {
                    return Err("two would scale the group".into());
                }
                let arn = format!("arn:policy/{group}/{direction:?}");
                let policy = ScalingPolicy {
                    arn,
                    settings: settings.clone(),
                };
                self.asg(group)?.scaling_policies.insert(*direction, policy);
                Ok(())
            }
            AutoScalingStep::DeleteScalingPolicy { group, direction } => {
                let removed = self.asg(group)?.scaling_policies.remove(direction);
                removed.map(|_| ()).ok_or("no such policy".into())
            }
            AutoScalingStep::SetProtection {
                group,
                instances,
                is_on,
            } => {
                let found = &mut self.asg(group)?.instances;
                for id in instances {
                    let found = found.iter_mut().find(|found| found.id == *id);
                    found.ok_or("not in the group")?.protected = *is_on;
                }
                Ok(())
            }
            AutoScalingStep::StartFirstNode { group } => {
                let change = GroupChange {
                    desired: Some(1),
                    ..GroupChange::default()
                };
                self.update_group(group, &change)
            }
            AutoScalingStep::AwaitFirstNode { group } => match self.asg(group)?.instances.len() {
                0 => Err("would wait for ever".into()),
                _ => Ok(()),
            },
            AutoScalingStep::TryRevision { group, .. }
            | AutoScalingStep::SpreadRevision { group, .. } => self.asg(group).map(drop),
            AutoScalingStep::Empty { group, .. } => {
                let asg = self.asg(group)?;
                (asg.min, asg.max, asg.desired) = (0, 0, 0);
                asg.policies.deletion_protection = Some("none".into());
                asg.instances.clear();
                Ok(())
            }
            AutoScalingStep::Delete { name } => {
                let group = self.group(|g| g.auto_scaling_group.name == *name)?;
                if group.auto_scaling_group.owned().is_some_and(|asg| {
                    !asg.instances.is_empty()
                        || asg.warm_pool.is_ours()
                        || asg.policies.protection().is_some()
                }) {
                    return Err("ResourceInUse".into());
                }
                group.auto_scaling_group = Presence::Absent;
                Ok(())
            }
        }
    }

    fn ecs(&mut self, step: &EcsStep) -> Result<(), String> {
        match step {
            EcsStep::CreateCluster {
                name,
                settings,
                tags,
            } => {
                let cluster = Cluster {
                    arn: format!("arn:cluster/{name}"),
                    tags: tags.clone(),
                    settings: settings.clone(),
                    ..Cluster::default()
                };
                create(&mut self.inventory.cluster, cluster)
            }
            EcsStep::UpdateCluster { settings, .. } => {
                let change = settings.clone();
                let settings = &mut existing(&mut self.inventory.cluster)?.settings;
                if change.container_insights.is_some() {
                    settings.container_insights = change.container_insights;
                }
                if change.execute_command_logging.is_some() {
                    settings.execute_command_logging = change.execute_command_logging;
                }
                Ok(())
            }
            EcsStep::PutClusterCapacityProviders {
                add,
                remove,
                default_strategy,
                ..
            } => {
                let unknown = add.iter().find(|name| {
                    !name.starts_with("FARGATE")
                        && !self.inventory.groups.values().any(|g| {
                            g.capacity_provider
                                .owned()
                                .is_some_and(|p| p.arn.ends_with(*name))
                        })
                });
                if let Some(unknown) = unknown {
                    return Err(format!("no capacity provider {unknown}"));
                }
                let bound = &self.inventory.tenancy.bound;
                if let Some(provider) = remove.iter().find(|name| bound.contains_key(*name)) {
                    return Err(format!("ResourceInUse: {provider}"));
                }
                let cluster = match &mut self.inventory.given_cluster {
                    Some(given) => given,
                    None => existing(&mut self.inventory.cluster)?,
                };
                let providers = &mut cluster.providers;
                providers.retain(|name| !add.contains(name) && !remove.contains(name));
                providers.extend(add.iter().cloned());
                if let Some(strategy) = default_strategy {
                    cluster.default_strategy.clone_from(strategy);
                }
                let strategy = cluster.default_strategy.iter();
                match strategy
                    .map(|item| &item.provider)
                    .find(|name| !providers.contains(name))
                {
                    Some(gone) => Err(format!("the default strategy names {gone}")),
                    None => Ok(()),
                }
            }
            EcsStep::DeleteService { service, .. } => {
                let workload = &mut existing(&mut self.inventory.cluster)?.workload;
                workload.services.retain(|other| other != service);
                Ok(())
            }
            EcsStep::StopTasks { tasks, .. } => {
                let workload = &mut existing(&mut self.inventory.cluster)?.workload;
                workload
                    .standalone_tasks
                    .retain(|other| !tasks.contains(other));
                Ok(())
            }
            EcsStep::DeregisterContainerInstances { .. } => {
                existing(&mut self.inventory.cluster)?
                    .workload
                    .container_instances = 0;
                Ok(())
            }
            EcsStep::DeleteCluster { .. } => {
                let cluster = existing(&mut self.inventory.cluster)?;
                if !cluster.workload.services.is_empty() || cluster.workload.container_instances > 0
                {
                    return Err("ClusterContains".into());
                }
                self.inventory.cluster = Presence::Absent;
                Ok(())
            }
            EcsStep::CreateCapacityProvider {
                name,
                auto_scaling_group,
                settings,
                tags,
            } => {
                self.may_scale(auto_scaling_group, settings)?;
                let provider = CapacityProvider {
                    arn: format!("arn:cp/{name}"),
                    tags: tags.clone(),
                    auto_scaling_group: format!("arn:asg/{auto_scaling_group}"),
                    settings: settings.clone(),
                };
                create(
                    &mut self
                        .group(|g| g.capacity_provider.name == *name)?
                        .capacity_provider,
                    provider,
                )
            }
            EcsStep::UpdateCapacityProvider { name, settings } => {
                let groups = self.desired.groups.iter();
                let mut groups = groups.filter(|g| g.capacity_provider.name == *name);
                let asg = groups.next().ok_or("no such group")?;
                self.may_scale(&asg.auto_scaling_group.name, settings)?;
                let group = self.group(|g| g.capacity_provider.name == *name)?;
                existing(&mut group.capacity_provider)?.settings = settings.clone();
                Ok(())
            }
            EcsStep::DeleteCapacityProvider { name } => {
                let attached = self
                    .inventory
                    .standing_cluster()
                    .is_some_and(|c| c.providers.contains(name));
                if attached {
                    return Err("ResourceInUse: detach it first".into());
                }
                self.group(|g| g.capacity_provider.name == *name)?
                    .capacity_provider = Presence::Absent;
                Ok(())
            }
        }
    }

    fn parameter(&mut self, step: &ParameterStep) -> Result<(), String> {
        match step {
            ParameterStep::Put { name, value, tags } => {
                let presence = &mut self.group(|g| g.parameter.name == *name)?.parameter;
                match (tags, presence) {
                    (Some(tags), absent @ Presence::Absent) => {
                        *absent = Presence::Owned(Parameter {
                            tags: tags.clone(),
                            value: value.clone(),
                        });
                        Ok(())
                    }
                    (None, Presence::Owned(found)) => {
                        found.value.clone_from(value);
                        Ok(())
                    }
                    _ => Err("tags and overwrite do not go together".into()),
                }
            }
            ParameterStep::Delete { name } => {
                self.group(|g| g.parameter.name == *name)?.parameter = Presence::Absent;
                Ok(())
            }
        }
    }

    fn bucket(&mut self, step: &BucketStep) -> Result<(), String> {
        let bucket = &mut self.inventory.bucket;
        match step {
            BucketStep::Create { tags, .. } => create(
                bucket,
                Bucket {
                    tags: tags.clone(),
                    ..Bucket::default()
                },
            ),
            BucketStep::BlockPublicAccess { .. } => {
                existing(bucket)?.is_public_access_blocked = true;
                Ok(())
            }
            BucketStep::Upload { sha256, .. } => {
                let object = &mut existing(bucket)?.object;
                match object.replace(sha256.clone()) {
                    None => Ok(()),
                    Some(_) => Err("PreconditionFailed".into()),
                }
            }
            BucketStep::Delete { .. } => {
                existing(bucket)?;
                *bucket = Presence::Absent;
                Ok(())
            }
        }
    }

    /// What ECS asks of a group that it is to scale: that it protects its nodes, and that nobody else does it.
    fn may_scale(&mut self, asg: &str, settings: &ProviderSettings) -> Result<(), String> {
        let asg = self.asg(asg)?;
        if settings.termination_protection
            && !(settings.managed_scaling && asg.new_instances_protected)
        {
            return Err("managed termination protection needs protected instances".into());
        }
        if settings.managed_scaling && !asg.scaling_policies.is_empty() {
            return Err("two would scale the group".into());
        }
        Ok(())
    }

    fn is_scaled_by_ecs(&mut self, asg: &str) -> Result<bool, String> {
        let group = self.group(|g| g.auto_scaling_group.name == asg)?;
        Ok(group.is_scaled_by_ecs())
    }

    fn alarm(&mut self, step: &AlarmStep) -> Result<(), String> {
        let direction = |name: &str| match name.ends_with("in") {
            true => spec::Direction::In,
            false => spec::Direction::Out,
        };
        match step {
            AlarmStep::Put {
                name,
                settings,
                sets_off,
                tags,
            } => {
                let arn = match sets_off {
                    PolicyUse::Arn(arn) => arn.clone(),
                    PolicyUse::Created { group, direction } => {
                        let policies = &self.asg(group)?.scaling_policies;
                        policies.get(direction).ok_or("no such policy")?.arn.clone()
                    }
                };
                let alarms = self.alarms(name)?;
                let kept = match alarms.remove(&direction(name)) {
                    Some(Presence::Owned(alarm)) => Some(alarm.tags),
                    Some(_) => return Err("not ours".into()),
                    None => None,
                };
                let alarm = Alarm {
                    arn: format!("arn:alarm/{name}"),
                    // Tags of a change are ignored.
                    tags: kept.or(tags.clone()).unwrap_or_default(),
                    settings: settings.clone(),
                    actions: vec![arn],
                };
                alarms.insert(direction(name), Presence::Owned(alarm));
                Ok(())
            }
            AlarmStep::Delete { name } => {
                let removed = self.alarms(name)?.remove(&direction(name));
                removed.map(|_| ()).ok_or("no such alarm".into())
            }
        }
    }

    fn alarms(
        &mut self,
        name: &String,
    ) -> Result<&mut BTreeMap<spec::Direction, Presence<Alarm>>, String> {
        let group = self.group(|g| g.alarms.values().any(|of| of == name))?;
        Ok(&mut group.alarms)
    }

    fn update_group(&mut self, name: &str, change: &GroupChange) -> Result<(), String> {
        let version = match &change.template {
            Some(template) => Some((self.version(template)?, template.mix.clone())),
            None => None,
        };
        let asg = self.asg(name)?;
        asg.min = change.min.unwrap_or(asg.min);
        asg.max = change.max.unwrap_or(asg.max);
        asg.desired = change
            .desired
            .unwrap_or(asg.desired.clamp(asg.min, asg.max));
        if asg.desired < asg.min || asg.desired > asg.max {
            return Err("ValidationError: desired outside min and max".into());
        }
        if let Some((version, mix)) = version {
            asg.template_version = version;
            asg.mix = mix;
        }
        if let Some(subnets) = &change.subnets {
            asg.subnets.clone_from(subnets);
        }
        asg.new_instances_protected = change
            .new_instances_protected
            .unwrap_or(asg.new_instances_protected);
        let policies = change.policies.clone();
        let kept = asg.policies.clone();
        asg.policies = inventory::Policies {
            max_lifetime_seconds: policies.max_lifetime_seconds.or(kept.max_lifetime_seconds),
            deletion_protection: policies.deletion_protection.or(kept.deletion_protection),
            zone_distribution: policies.zone_distribution.or(kept.zone_distribution),
        };
        for index in asg.instances.len()..asg.desired as usize {
            asg.instances.push(Instance {
                id: format!("i-{index}"),
                state: "InService".into(),
                protected: asg.new_instances_protected,
                template_version: asg.template_version,
                ..Instance::default()
            });
        }
        Ok(())
    }

    fn resolved(&mut self, template: &Template) -> Result<Template, String> {
        let mut template = template.clone();
        for reference in &mut template.security_groups {
            if let SecurityGroupRef::Created(name) = reference {
                let group = self.group(|g| g.security_group.name == *name)?;
                *reference = SecurityGroupRef::Id(existing(&mut group.security_group)?.id.clone());
            }
        }
        Ok(template)
    }

    fn version(&mut self, template: &TemplateUse) -> Result<Option<i64>, String> {
        let group = self.group(|g| g.launch_template.name == template.name)?;
        let found = existing(&mut group.launch_template)?;
        match template.version {
            Version::Created => Ok(Some(found.latest_version)),
            Version::Number(number) if number <= found.latest_version => Ok(Some(number)),
            Version::Number(number) => Err(format!("no version {number}")),
        }
    }

    fn group(&mut self, is_it: impl Fn(&desired::Group) -> bool) -> Result<&mut Group, String> {
        let removed = self.inventory.removed.iter();
        let mut all = self.desired.groups.iter().chain(removed);
        let group = all.find(|group| is_it(group));
        let group = group.ok_or("a name outside the plan's environment")?;
        let name = group.name.clone();
        self.inventory
            .groups
            .get_mut(&name)
            .ok_or("no such group".into())
    }

    fn role(&mut self, name: &str) -> Result<&mut Role, String> {
        existing(&mut self.group(|g| g.role.name == name)?.role)
    }

    fn profile(&mut self, name: &str) -> Result<&mut InstanceProfile, String> {
        existing(&mut self.group(|g| g.instance_profile == name)?.instance_profile)
    }

    fn asg(&mut self, name: &str) -> Result<&mut AutoScalingGroup, String> {
        let group = self.group(|g| g.auto_scaling_group.name == name)?;
        existing(&mut group.auto_scaling_group)
    }

    fn tags(&mut self, resource: &Taggable) -> Result<&mut Tags, String> {
        if let Presence::Owned(cluster) = &mut self.inventory.cluster
            && *resource == Taggable::Ecs(cluster.arn.clone())
        {
            return Ok(&mut cluster.tags);
        }
        if let Presence::Owned(bucket) = &mut self.inventory.bucket
            && matches!(resource, Taggable::Bucket(_))
        {
            return Ok(&mut bucket.tags);
        }
        let name = resource.name();
        let mut all: Vec<&mut Tags> = Vec::new();
        for (key, group) in &mut self.inventory.groups {
            match resource {
                Taggable::Ecs(arn) => all.extend(
                    owned_mut(&mut group.capacity_provider)
                        .filter(|p| p.arn == *arn)
                        .map(|p| &mut p.tags),
                ),
                Taggable::SecurityGroup(id) => all.extend(
                    owned_mut(&mut group.security_group)
                        .filter(|g| g.id == *id)
                        .map(|g| &mut g.tags),
                ),
                Taggable::LaunchTemplate(name) => {
                    let mut wanted = self.desired.groups.iter();
                    let is_its =
                        wanted.any(|of| of.name == *key && of.launch_template.name == *name);
                    let found = owned_mut(&mut group.launch_template);
                    all.extend(found.filter(|_| is_its).map(|t| &mut t.tags));
                }
                Taggable::Role(_)
                | Taggable::InstanceProfile(_)
                | Taggable::Bucket(_)
                | Taggable::AutoScalingGroup(_)
                | Taggable::Parameter(_)
                | Taggable::Alarm(_) => {
                    return Err(format!("the tests tag no {name}"));
                }
            }
        }
        all.pop().ok_or(format!("nothing to tag: {name}"))
    }
}

fn create<T>(presence: &mut Presence<T>, resource: T) -> Result<(), String> {
    if matches!(presence, Presence::Absent) {
        *presence = Presence::Owned(resource);
        Ok(())
    } else {
        Err("AlreadyExists".into())
    }
}

fn existing<T>(presence: &mut Presence<T>) -> Result<&mut T, String> {
    owned_mut(presence).ok_or("not found".into())
}

fn owned_mut<T>(presence: &mut Presence<T>) -> Option<&mut T> {
    match presence {
        Presence::Owned(resource) => Some(resource),
        Presence::Absent | Presence::Leaving | Presence::Foreign(_) => None,
    }
}

/// Whether anything of ours is left.
pub(super) fn is_empty(inventory: &Inventory) -> bool {
    let left: BTreeSet<bool> = inventory
        .groups
        .values()
        .map(|g| {
            g.role.is_ours()
                || g.instance_profile.is_ours()
                || g.security_group.is_ours()
                || g.launch_template.is_ours()
                || g.auto_scaling_group.is_ours()
                || g.capacity_provider.is_ours()
                || g.parameter.is_ours()
                || g.alarms.values().any(Presence::is_ours)
        })
        .collect();
    !left.contains(&true) && !inventory.cluster.is_ours() && !inventory.bucket.is_ours()
}
