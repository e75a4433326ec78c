//! The way to what the file says: facts of AWS first (role before profile, group before provider),
//! then one proving node for each new group.

mod beside;
mod bucket;
mod iam;
mod scaling;

use std::collections::BTreeMap;

use fleet_agent_config::names::tag;

use super::{
    AutoScalingStep, Builder, Conflict, Ec2Step, EcsStep, Effect, Goal, GroupChange, Mark,
    NewGroup, ParameterStep, Plan, STARTING, Step, Steps, Taggable, Version, conflicts, describe,
    wanted::{
        cluster_settings, group_change, group_tags, in_order_of, is_settled, is_starting,
        missing_group_tags, own_tag, policies, protects_nodes, provider_settings, revision,
        spec_tag, template, template_use, value,
    },
};
use crate::{
    desired::{self, Desired},
    inventory::{
        Cluster, ClusterSettings, Group, GroupTag, Inventory, SecurityGroupRef, StrategyItem, Tags,
    },
};

pub(super) fn plan(desired: &Desired, inventory: &Inventory) -> Result<Plan, Vec<Conflict>> {
    let conflicts = conflicts::find(desired, inventory);
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut up = Up {
        desired,
        inventory,
        builder: Builder::new(Goal::Up),
        bucket: None,
    };
    up.builder.line(
        Mark::Adopted,
        "vpc",
        &desired.network.vpc_id,
        "kept, never changed",
    );
    let service_roles = up.service_roles();
    let cluster = up.cluster(&service_roles);
    let prepared: Vec<Prepared> = desired
        .groups
        .iter()
        .filter_map(|group| Some((group, inventory.groups.get(&group.name)?)))
        .map(|(group, existing)| up.group(group, existing, &service_roles))
        .collect();
    let attached = up.attach(
        cluster
            .into_iter()
            .chain(prepared.iter().flat_map(|group| group.provider.clone())),
    );
    for group in prepared {
        up.start(group, &attached);
    }
    Ok(up.builder.plan)
}

struct Up<'a> {
    desired: &'a Desired,
    inventory: &'a Inventory,
    builder: Builder,
    /// What makes the bucket ready, once that is planned.
    bucket: Option<Steps>,
}

/// Live settings on their way to nodes that serve.
#[derive(Clone, Copy)]
struct LiveChange<'a> {
    /// What the parameter holds; 0 if that is what the user data says.
    revision: u64,
    /// The steps after which it does.
    written: &'a [usize],
}

/// A group whose resources are planned.
struct Prepared<'a> {
    /// What its parameter holds.
    revision: u64,
    group: &'a desired::Group,
    existing: &'a Group,
    /// All that its nodes rely on.
    ready: Steps,
    /// What creates or changes its capacity provider.
    provider: Steps,
}

impl<'a> Up<'a> {
    fn cluster(&mut self, service_roles: &[usize]) -> Steps {
        let wanted = &self.desired.cluster;
        let settings = cluster_settings(wanted);
        if let Some(given) = &self.inventory.given_cluster {
            let groups = &self.desired.groups;
            let is_ours = |name: &str| {
                let mut ours = groups.iter().map(|group| &group.capacity_provider.name);
                ours.any(|ours| ours == name)
            };
            let detail = describe::kept_cluster(given, "never changed", is_ours);
            self.builder
                .line(Mark::Adopted, "cluster", &wanted.name, detail);
            return Steps::new();
        }
        let Some(cluster) = self.inventory.cluster.owned() else {
            let detail = describe::cluster_changes(&settings).join(", ");
            self.builder
                .line(Mark::Create, "cluster", &wanted.name, detail);
            let create = EcsStep::CreateCluster {
                name: wanted.name.clone(),
                settings,
                tags: wanted.tags.clone(),
            };
            let after = service_roles.iter().copied();
            return vec![self.builder.step(create, after)];
        };
        let mut steps = self.tags(
            Taggable::Ecs(cluster.arn.clone()),
            &wanted.tags,
            &cluster.tags,
            [],
        );
        let mut details = describe::tagged(&steps);
        let change = settings.changed_from(&cluster.settings);
        if change != ClusterSettings::default() {
            details.extend(describe::cluster_changes(&change));
            let update = EcsStep::UpdateCluster {
                name: wanted.name.clone(),
                settings: change,
            };
            steps.push(self.builder.step(update, []));
        }
        self.keep_or_change("cluster", &wanted.name, details);
        steps
    }

    fn group(
        &mut self,
        group: &'a desired::Group,
        existing: &'a Group,
        service_roles: &[usize],
    ) -> Prepared<'a> {
        let role = match &group.given_role {
            Some(name) => self.given_role(name, group, existing),
            None => self.role(group, existing),
        };
        // What it may do comes into force while the profile is made known.
        let is_new = group.given_role.is_none() && existing.role.owned().is_none();
        let created = role.first().copied().filter(|_| is_new);
        let profile = self.instance_profile(group, existing, created);
        let (security_group, reference) = self.security_group(group, existing);
        let (template, version) = self.launch_template(group, existing, &security_group, reference);
        let bucket = self.bucket(&template);
        let (parameter, revision) = self.parameter(group, existing);
        let before: Steps = [&template, &bucket, &profile, service_roles].concat();
        let live = LiveChange {
            revision,
            written: &parameter,
        };
        let asg = self.auto_scaling_group(group, existing, version, live, before);
        // One after the other: who scales a group stops before the next begins.
        let unscaled = self.no_step_scaling(group, existing);
        let provider = self.capacity_provider(group, existing, &[&asg[..], &unscaled].concat());
        if let Some(found) = existing.auto_scaling_group.owned()
            && !is_starting(found)
        {
            let after = [&asg[..], &provider].concat();
            self.step_scaling(group, existing, &after);
            self.lets_nodes_go(group, existing, &after);
        }
        let ready = [
            role,
            profile,
            security_group,
            template,
            bucket,
            parameter,
            asg,
        ]
        .concat();
        Prepared {
            revision,
            group,
            existing,
            ready,
            provider,
        }
    }

    fn security_group(
        &mut self,
        group: &desired::Group,
        existing: &Group,
    ) -> (Steps, SecurityGroupRef) {
        let wanted = &group.security_group;
        let Some(found) = existing.security_group.owned() else {
            self.builder
                .line(Mark::Create, "security-group", &wanted.name, "no way in");
            let create = Ec2Step::CreateSecurityGroup {
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                vpc_id: self.desired.network.vpc_id.clone(),
                tags: group.tags.clone(),
            };
            let create = self.builder.step(create, []);
            return (vec![create], SecurityGroupRef::Created(wanted.name.clone()));
        };

        let mut steps = self.tags(
            Taggable::SecurityGroup(found.id.clone()),
            &group.tags,
            &found.tags,
            [],
        );
        if found.ingress.is_empty() {
            self.keep_or_change("security-group", &wanted.name, describe::tagged(&steps));
        } else {
            let rules: Vec<String> = found.ingress.iter().map(describe::ingress).collect();
            self.builder.line(
                Mark::Correct,
                "security-group",
                &wanted.name,
                format!("{} not in file, removed", rules.join(", ")),
            );
            let revoke = Ec2Step::RevokeIngress {
                name: wanted.name.clone(),
                id: found.id.clone(),
                rules: found.ingress.clone(),
            };
            steps.push(self.builder.step(revoke, []));
        }
        (steps, SecurityGroupRef::Id(found.id.clone()))
    }

    fn launch_template(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        security_group: &[usize],
        reference: SecurityGroupRef,
    ) -> (Steps, Version) {
        let found = existing.launch_template.owned();
        let mut wanted = template(group, found, self.inventory, reference);
        // Nodes that can be brought to these settings while they live need no new version.
        let kept = found.and_then(|found| {
            let settings = &group.launch_template.settings;
            (found.latest.user_data != wanted.user_data)
                .then(|| settings.kept_by(&found.latest.user_data))?
        });
        if let (Some(problems), Some(found)) = (&kept, found)
            && problems.is_empty()
        {
            wanted.user_data.clone_from(&found.latest.user_data);
        }
        let name = &group.launch_template.name;
        let after = security_group.iter().copied();
        let Some(found) = found else {
            let detail = format!(
                "v1, image {}, user data {} bytes, {}",
                wanted.image_id,
                wanted.user_data.len(),
                describe::made_of(&wanted)
            );
            self.builder
                .line(Mark::Create, "launch-template", name, detail);
            let create = Ec2Step::CreateLaunchTemplate {
                name: name.clone(),
                template: Box::new(wanted),
                tags: self.template_tags(group),
            };
            return (vec![self.builder.step(create, after)], Version::Created);
        };

        let mut steps = self.tags(
            Taggable::LaunchTemplate(name.clone()),
            &self.template_tags(group),
            &found.tags,
            [],
        );
        if found.latest == wanted {
            let mut details = describe::tagged(&steps);
            if details.is_empty() {
                self.builder.line(
                    Mark::Keep,
                    "launch-template",
                    name,
                    describe::newer_image(group, &wanted, self.inventory),
                );
            } else {
                details.push(format!("v{}", found.latest_version));
                self.keep_or_change("launch-template", name, details);
            }
            return (steps, Version::Number(found.latest_version));
        }
        let mut details = vec![format!(
            "v{} -> v{}",
            found.latest_version,
            found.latest_version + 1
        )];
        details.extend(describe::template_changes(&found.latest, &wanted));
        details.extend(kept.iter().flatten().map(describe::needs_a_roll));
        let mark = changed(is_settled(group, existing));
        self.builder
            .change(mark, "launch-template", name, details, Effect::None);
        let create = Ec2Step::CreateLaunchTemplateVersion {
            name: name.clone(),
            template: Box::new(wanted),
        };
        steps.push(self.builder.step(create, after));
        (steps, Version::Created)
    }

    /// The steps, and the number of the revision that it holds then.
    fn parameter(&mut self, group: &desired::Group, existing: &Group) -> (Steps, u64) {
        let wanted = &group.parameter;
        let (revision, is_written) = revision(group, existing);
        let write = |tags| ParameterStep::Put {
            name: wanted.name.clone(),
            value: value(&wanted.live, revision),
            tags,
        };
        let Some(found) = existing.parameter.owned() else {
            self.builder
                .line(Mark::Create, "parameter", &wanted.name, "");
            let create = self.builder.step(write(Some(group.tags.clone())), []);
            return (vec![create], revision);
        };
        let mut steps = self.tags(
            Taggable::Parameter(wanted.name.clone()),
            &group.tags,
            &found.tags,
            [],
        );
        let mut details = describe::tagged(&steps);
        if !is_written {
            details.push(format!("live settings, revision {revision}"));
            steps.push(self.builder.step(write(None), []));
        }
        let effect = match is_written {
            true => Effect::None,
            false => Effect::Live,
        };
        let mark = keep_or(&details, Mark::Change);
        self.builder
            .change(mark, "parameter", &wanted.name, details, effect);
        (steps, revision)
    }

    fn new_auto_scaling_group(
        &mut self,
        group: &desired::Group,
        version: Version,
        after: Steps,
    ) -> Steps {
        let wanted = &group.auto_scaling_group;
        let template = template_use(group, version);
        let mut details = vec![format!(
            "min {}, max {}, desired {}",
            wanted.min, wanted.max, wanted.desired
        )];
        details.extend(template.mix.as_ref().map(|mix| describe::mix(Some(mix))));
        details.extend(describe::own_accord(wanted));
        let detail = details.join(", ");
        self.builder
            .line(Mark::Create, "auto-scaling-group", &wanted.name, detail);
        let mut tags = group_tags(group);
        tags.insert(tag::SPEC.into(), own_tag(STARTING));
        let create = AutoScalingStep::Create(Box::new(NewGroup {
            name: wanted.name.clone(),
            max: wanted.max,
            template,
            subnets: self.desired.network.subnet_ids.clone(),
            new_instances_protected: protects_nodes(group),
            policies: policies(wanted),
            hooks: wanted.hooks.clone(),
            tags,
        }));
        let create = self.builder.step(create, after);
        let mut steps = vec![create];
        steps.extend(self.metrics_of_new(wanted, create));
        steps
    }

    fn auto_scaling_group(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        version: Version,
        live: LiveChange<'_>,
        after: Steps,
    ) -> Steps {
        let Some(found) = existing.auto_scaling_group.owned() else {
            return self.new_auto_scaling_group(group, version, after);
        };
        let wanted = &group.auto_scaling_group;
        let template = template_use(group, version);
        let change = group_change(self.desired, group, found, template);
        let mut details = describe::group_changes(found, &change);
        let mut steps = Steps::new();
        let mut after = after;
        if change.new_instances_protected == Some(true) {
            after.extend(self.keeps_nodes(found, &wanted.name, &mut details));
        }
        if change != GroupChange::default() {
            let update = AutoScalingStep::Update {
                name: wanted.name.clone(),
                change,
            };
            steps.push(self.builder.step(update, after));
        }
        for hook in wanted
            .hooks
            .iter()
            .filter(|hook| !found.hooks.contains(hook))
        {
            details.push(format!("hook {}", hook.name));
            let put = AutoScalingStep::PutHook {
                group: wanted.name.clone(),
                hook: hook.clone(),
            };
            steps.push(self.builder.step(put, []));
        }
        steps.extend(self.metrics(wanted, found, &mut details));
        let mut missing = missing_group_tags(group, found, live.revision);
        if !missing.is_empty() {
            details.push(format!("tags {}", describe::keys(&missing)));
            let tag = |tags| Step::Tag {
                resource: Taggable::AutoScalingGroup(wanted.name.clone()),
                tags,
            };
            // The hash says that all before it is done, so that an interrupted run goes on here.
            if let Version::Number(version) = version
                && live.revision > 0
                && (missing.contains_key(tag::REVISION) || missing.contains_key(tag::SPEC))
            {
                let mut before = [live.written, &steps].concat();
                if let Some(revision) = missing.remove(tag::REVISION) {
                    let attempt = AutoScalingStep::TryRevision {
                        group: wanted.name.clone(),
                        version,
                        revision: live.revision,
                    };
                    before = vec![self.builder.step(attempt, before)];
                    // Before the others: who is launched meanwhile has it from birth.
                    let tags = [(tag::REVISION.to_owned(), revision)].into();
                    before = vec![self.builder.step(tag(tags), before)];
                }
                let spread = AutoScalingStep::SpreadRevision {
                    group: wanted.name.clone(),
                    version,
                    revision: live.revision,
                };
                details.push(describe::spreads(found, version, live.revision));
                steps.push(self.builder.step(spread, before));
            }
            if !missing.is_empty() {
                let after = [live.written, &steps].concat();
                steps.push(self.builder.step(tag(missing), after));
            }
        }
        let mark = keep_or(&details, changed(is_settled(group, existing)));
        if details.is_empty() {
            details.push(describe::controller_owned(group, found));
        }
        let stale = describe::stale(found, version);
        self.builder
            .change(mark, "auto-scaling-group", &wanted.name, details, stale);
        if !is_starting(found) {
            // With the bounds and the template of today.
            let after = steps.clone();
            steps.extend(self.launching(wanted, Some(found), &after));
        }
        steps
    }

    fn capacity_provider(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        asg: &[usize],
    ) -> Steps {
        let wanted = &group.capacity_provider;
        let settings = provider_settings(group);
        let Some(found) = existing.capacity_provider.owned() else {
            let detail = match settings.managed_scaling {
                true => "",
                false => "managed scaling off",
            };
            self.builder
                .line(Mark::Create, "capacity-provider", &wanted.name, detail);
            let create = EcsStep::CreateCapacityProvider {
                name: wanted.name.clone(),
                auto_scaling_group: group.auto_scaling_group.name.clone(),
                settings,
                tags: group.tags.clone(),
            };
            return vec![self.builder.step(create, asg.iter().copied())];
        };
        let mut steps = self.tags(
            Taggable::Ecs(found.arn.clone()),
            &group.tags,
            &found.tags,
            [],
        );
        let mut details = describe::tagged(&steps);
        if found.settings != settings {
            details.extend(describe::provider_changes(&found.settings, &settings));
            let update = EcsStep::UpdateCapacityProvider {
                name: wanted.name.clone(),
                settings,
            };
            steps.push(self.builder.step(update, asg.iter().copied()));
        }
        let mark = keep_or(&details, changed(is_settled(group, existing)));
        self.builder.change(
            mark,
            "capacity-provider",
            &wanted.name,
            details,
            Effect::None,
        );
        steps
    }

    /// One write for all groups; others' providers stay. Where tasks of an adopted cluster go is its
    /// owner's to say.
    fn attach(&mut self, after: impl IntoIterator<Item = usize>) -> Steps {
        let nothing = Cluster::default();
        let cluster = self.inventory.standing_cluster().unwrap_or(&nothing);
        let groups = self.desired.groups.iter();
        let ours = groups.map(|group| &group.capacity_provider.name);
        let missing: Vec<String> = ours
            .clone()
            .chain(&self.desired.cluster.more_providers)
            .filter(|name| !cluster.providers.contains(name))
            .cloned()
            .collect();
        let default_strategy = if self.desired.cluster.is_adopted {
            cluster.default_strategy.clone()
        } else if let Some(wanted) = &self.desired.cluster.default_strategy {
            in_order_of(&cluster.default_strategy, wanted)
        } else if cluster.default_strategy.is_empty() {
            ours.map(|name| StrategyItem {
                provider: name.clone(),
                weight: 1,
                base: 0,
            })
            .collect()
        } else {
            cluster.default_strategy.clone()
        };
        if missing.is_empty() && default_strategy == cluster.default_strategy {
            return Steps::new();
        }
        self.builder.line(
            if missing.is_empty() {
                Mark::Correct
            } else {
                Mark::Create
            },
            "attachment",
            &self.desired.cluster.name,
            if missing.is_empty() {
                "default strategy".to_owned()
            } else {
                missing.join(", ")
            },
        );
        let put = EcsStep::PutClusterCapacityProviders {
            cluster: self.desired.cluster.name.clone(),
            add: missing,
            remove: Vec::new(),
            default_strategy: (default_strategy != cluster.default_strategy)
                .then_some(default_strategy),
        };
        vec![self.builder.step(put, after)]
    }

    /// A group that has never run gets one node first; its sizes are set once that one is ready.
    fn start(&mut self, prepared: Prepared<'_>, attached: &[usize]) {
        let Prepared {
            revision,
            group,
            existing,
            ready,
            provider,
        } = prepared;
        let found = existing.auto_scaling_group.owned();
        if found.is_some_and(|found| !is_starting(found)) {
            return;
        }
        let wanted = &group.auto_scaling_group;
        // ECS may have asked for more since an earlier run was stopped: tasks wait for those nodes.
        let asked_for = found.map_or(0, |found| found.desired);
        let wanted_nodes = wanted.desired.max(asked_for).min(wanted.max);
        let mut after: Steps = [&ready, &provider, attached].concat();
        if wanted.desired > 0 {
            if found.is_none_or(|found| found.desired == 0) {
                let start = AutoScalingStep::StartFirstNode {
                    group: wanted.name.clone(),
                };
                after = vec![self.builder.step(start, after)];
            }
            let wait = AutoScalingStep::AwaitFirstNode {
                group: wanted.name.clone(),
            };
            after = vec![self.builder.step(wait, after)];
        }
        self.builder.line(
            Mark::Create,
            "nodes",
            &wanted.name,
            match wanted_nodes {
                0 => "none yet".to_owned(),
                nodes => format!("{nodes}, one first"),
            },
        );
        let open = AutoScalingStep::Update {
            name: wanted.name.clone(),
            change: GroupChange {
                min: Some(wanted.min),
                desired: Some(wanted_nodes),
                ..GroupChange::default()
            },
        };
        let open = self.builder.step(open, after);
        let tag = Step::Tag {
            resource: Taggable::AutoScalingGroup(wanted.name.clone()),
            tags: [(tag::SPEC.to_owned(), own_tag(&spec_tag(group, revision)))].into(),
        };
        let mut done = vec![open];
        done.extend(self.launching(wanted, found, &[open]));
        done.extend(self.step_scaling(group, existing, &[open]));
        done.extend(self.lets_nodes_go(group, existing, &[open]));
        self.builder.step(tag, done);
    }

    fn tags(
        &mut self,
        resource: Taggable,
        wanted: &Tags,
        found: &Tags,
        after: impl IntoIterator<Item = usize>,
    ) -> Steps {
        let missing: BTreeMap<String, GroupTag> = wanted
            .iter()
            .filter(|(key, value)| found.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), own_tag(value)))
            .collect();
        if missing.is_empty() {
            return Steps::new();
        }
        let tag = Step::Tag {
            resource,
            tags: missing,
        };
        vec![self.builder.step(tag, after)]
    }

    fn keep_or_change(&mut self, kind: &'static str, name: &str, details: Vec<String>) {
        let mark = keep_or(&details, Mark::Change);
        self.builder.change(mark, kind, name, details, Effect::None);
    }
}

fn keep_or(details: &[String], changed: Mark) -> Mark {
    match details {
        [] => Mark::Keep,
        [..] => changed,
    }
}

/// Whose doing a difference is: where the file has not changed since, not ours.
fn changed(is_settled: bool) -> Mark {
    match is_settled {
        true => Mark::Correct,
        false => Mark::Change,
    }
}
