//! From a checked spec to the resources it asks for.

use std::collections::BTreeMap;

use fleet_agent_config::{
    LIVE_MAX, Live, Problem, Problems, REVISION_MAX, SIDECARS_MAX, names as fixed, names::tag,
};

use super::{
    AutoScalingGroup, Bucket, CapacityProvider, Cluster, Desired, Drain, Group, Hook, Identity,
    Image, LaunchTemplate, Network, Parameter, Role, SecurityGroup, Settings, Source, StrategyItem,
    Transition,
    agent::AgentSettings,
    multipart,
    names::{self, GroupNames},
    policy, user_data,
};
use crate::spec;

/// ECS-optimized images: the one of the day is called `recommended`, others by their names (ECS guide,
/// "Retrieving ECS-optimized AMI metadata").
const IMAGE_PARAMETERS: &str = "/aws/service/ecs/optimized-ami/amazon-linux-2023";
/// A group that left the file leaves no deadline behind: as long as Auto Scaling holds a hook of 300 s.
const REMOVED_DEADLINE_SECONDS: u32 = 30_000;
/// Nor its sidecars: as long as any group's may take.
const REMOVED_SIDECARS_SECONDS: u32 = SIDECARS_MAX;

/// The resources of one environment.
///
/// # Errors
/// What shows only once everything is put together: user data or a parameter past AWS's limits.
pub fn build(spec: &spec::Spec) -> Result<Desired, Problems> {
    let cluster = cluster_name(spec);
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    for group in &spec.groups {
        match Builder::new(spec, group, &cluster).and_then(Builder::group) {
            Ok(group) => groups.push(group),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(Problems {
            file: spec.file.clone(),
            problems,
        });
    }
    Ok(Desired {
        identity: Identity {
            fleet: spec.fleet.clone(),
            environment: spec.environment.clone(),
            owner: spec.owner.clone(),
            region: spec.region.clone(),
        },
        network: Network {
            vpc_id: spec.network.vpc_id.clone(),
            subnet_ids: spec.network.subnet_ids.clone(),
        },
        cluster: Cluster {
            tags: owned(spec, spec.cluster_tags.clone()),
            container_insights: spec.cluster.container_insights,
            execute_command_logging: spec.cluster.execute_command_logging.clone(),
            more_providers: match spec.cluster.fargate {
                true => spec::FARGATE.map(str::to_owned).to_vec(),
                false => Vec::new(),
            },
            default_strategy: default_strategy(spec),
            is_adopted: spec.cluster.adopt.is_some(),
            own_name: names::cluster(&spec.fleet, &spec.environment),
            name: cluster,
        },
        source: source(spec),
        bucket: bucket(spec),
        groups,
    })
}

/// A group that is not in the file any more: its names, which follow from its key as those of any
/// other group do, and no settings.
pub(crate) fn removed(identity: &Identity, group: &str) -> Group {
    let names = GroupNames::new(
        &identity.fleet,
        &identity.environment,
        group,
        &identity.region,
    );
    Group {
        name: group.to_owned(),
        tags: BTreeMap::new(),
        role: Role {
            name: names.role.clone(),
            trust_policy: serde_json::Value::Null,
            permissions_boundary: None,
            managed_policies: Vec::new(),
            policy_name: policy::POLICY_NAME.to_owned(),
            policy_template: serde_json::Value::Null,
        },
        given_role: None,
        instance_profile: names.role,
        security_group: SecurityGroup {
            name: names.long.clone(),
            description: String::new(),
        },
        launch_template: LaunchTemplate {
            name: names.launch_template,
            image: Image::Pinned(String::new()),
            newest_image: false,
            instance_type: String::new(),
            root_volume: spec::Volume::default(),
            docker_volume: None,
            cpu_credits: None,
            detailed_monitoring: false,
            key_pair: None,
            security_groups: Vec::new(),
            user_data: Vec::new(),
            settings: Settings::default(),
            instance_tags: BTreeMap::new(),
        },
        auto_scaling_group: AutoScalingGroup {
            name: names.long.clone(),
            instance_types: Vec::new(),
            spot: None,
            metrics: false,
            max_lifetime_days: None,
            deletion_protection: spec::DeletionProtection::default(),
            zone_distribution: spec::ZoneDistribution::default(),
            warm_pool: None,
            schedules: BTreeMap::new(),
            min: 0,
            max: 0,
            desired: 0,
            hooks: Vec::new(),
        },
        capacity_provider: CapacityProvider {
            name: names.long,
            instance_warmup_seconds: 0,
        },
        scaling: spec::Scaling::Managed { target_capacity: 0 },
        alarms: names.alarms,
        parameter: Parameter {
            name: names.parameter,
            live: Live::default(),
        },
        drain: Drain {
            deadline_seconds: REMOVED_DEADLINE_SECONDS,
            sidecars_seconds: REMOVED_SIDECARS_SECONDS,
        },
    }
}

/// Of the cluster that nodes join.
fn cluster_name(spec: &spec::Spec) -> String {
    match &spec.cluster.adopt {
        Some(adopted) => adopted.clone(),
        None => names::cluster(&spec.fleet, &spec.environment),
    }
}

fn bucket(spec: &spec::Spec) -> Bucket {
    Bucket::of(spec, owned(spec, spec.tags.clone()))
}

fn source(spec: &spec::Spec) -> Option<Source> {
    Source::of(spec, &bucket(spec))
}

/// What a group's nodes read, as people can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// agent.toml.
    pub agent_toml: String,
    /// User data before it is packed.
    pub user_data: String,
}

/// The documents of one group, without limits on their size.
///
/// # Errors
/// What the agent would refuse; nothing for a spec that was loaded.
pub fn documents(spec: &spec::Spec, group: &spec::Group) -> Result<Documents, Problems> {
    let cluster = cluster_name(spec);
    Builder::new(spec, group, &cluster)
        .and_then(|builder| builder.documents())
        .map_err(|problems| Problems {
            file: spec.file.clone(),
            problems,
        })
}

/// One group in the making.
struct Builder<'a> {
    spec: &'a spec::Spec,
    group: &'a spec::Group,
    cluster: &'a str,
    names: GroupNames,
    agent: AgentSettings,
}

impl<'a> Builder<'a> {
    fn new(
        spec: &'a spec::Spec,
        group: &'a spec::Group,
        cluster: &'a str,
    ) -> Result<Self, Vec<Problem>> {
        let names = GroupNames::new(&spec.fleet, &spec.environment, &group.name, &spec.region);
        let agent = AgentSettings::new(spec, group, cluster, &names)?;
        Ok(Self {
            spec,
            group,
            cluster,
            names,
            agent,
        })
    }

    fn group(self) -> Result<Group, Vec<Problem>> {
        let user_data = self.user_data()?;
        let parameter = self.parameter()?;
        let (group, names) = (self.group, &self.names);
        let mut tags = owned(self.spec, group.tags.clone());
        tags.insert(tag::GROUP.to_owned(), group.name.clone());
        let mut instance_tags = tags.clone();
        instance_tags
            .entry("Name".to_owned())
            .or_insert_with(|| names.long.clone());
        Ok(Group {
            name: group.name.clone(),
            tags,
            role: self.role(),
            given_role: group.role.clone(),
            instance_profile: names.role.clone(),
            security_group: SecurityGroup {
                name: names.long.clone(),
                description: "Fleet nodes: no way in, every way out".to_owned(),
            },
            launch_template: LaunchTemplate {
                name: names.launch_template.clone(),
                image: image(&group.ami),
                newest_image: false,
                instance_type: group.instance_types.first().cloned().unwrap_or_default(),
                root_volume: group.root_volume.clone(),
                docker_volume: group.docker_volume.clone(),
                cpu_credits: group.cpu_credits,
                detailed_monitoring: group.detailed_monitoring,
                key_pair: group.key_pair.clone(),
                security_groups: group.security_groups.clone(),
                user_data,
                settings: Settings {
                    config: self.agent.config().clone(),
                    source: source(self.spec),
                    own: group.user_data.clone(),
                    docker_volume: group.docker_volume.is_some(),
                },
                instance_tags,
            },
            auto_scaling_group: AutoScalingGroup {
                name: names.long.clone(),
                instance_types: group.instance_types.clone(),
                spot: group.spot,
                metrics: group.metrics,
                max_lifetime_days: group.max_lifetime_days,
                deletion_protection: group.deletion_protection,
                zone_distribution: group.zone_distribution,
                warm_pool: group.warm_pool,
                schedules: group.schedules.clone(),
                min: group.min,
                max: group.max,
                desired: group.desired,
                hooks: self.hooks(),
            },
            capacity_provider: CapacityProvider {
                name: names.long.clone(),
                instance_warmup_seconds: self.agent.launch_timeout_seconds,
            },
            scaling: group.scaling.clone(),
            alarms: names.alarms.clone(),
            parameter,
            drain: self.agent.drain,
        })
    }

    fn role(&self) -> Role {
        let sets = |name: &str| self.group.ecs.get(name).map(String::as_str);
        let propagates = sets("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM") == Some("ec2_instance");
        let tells_apart = self.group.node.instance_tag == Some(true);
        let agent = source(self.spec).and_then(|source| source.readable(&bucket(self.spec)));
        let scope = policy::Scope {
            region: &self.spec.region,
            cluster: self.cluster,
            auto_scaling_group: &self.names.long,
            parameter: &self.names.parameter,
            secrets: self.agent.secrets(),
            images: self.agent.images(),
            agent: agent.as_deref(),
            replacement: self.agent.replacement,
            tags_container_instance: propagates
                || tells_apart
                || sets("ECS_CONTAINER_INSTANCE_TAGS").is_some(),
            propagates_instance_tags: propagates,
            own_instance_only: tells_apart,
        };
        Role {
            name: self.names.role.clone(),
            trust_policy: policy::trust(),
            permissions_boundary: self.group.permissions_boundary.clone(),
            managed_policies: self.group.policies.clone(),
            policy_name: policy::POLICY_NAME.to_owned(),
            policy_template: scope.policy(),
        }
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![
            Hook {
                name: fixed::LAUNCH_HOOK.to_owned(),
                transition: Transition::Launching,
                timeout_seconds: self.agent.launch_timeout_seconds,
            },
            Hook {
                name: fixed::DRAIN_HOOK.to_owned(),
                transition: Transition::Terminating,
                timeout_seconds: self.agent.drain_timeout_seconds,
            },
        ]
    }

    fn documents(&self) -> Result<Documents, Vec<Problem>> {
        let agent_toml = self.agent.text().map_err(|why| self.problem(why))?;
        let source = source(self.spec);
        let docker_volume = self.group.docker_volume.is_some();
        let cloud_config = user_data::cloud_config(&agent_toml, source.as_ref(), docker_volume)
            .map_err(|why| self.problem(why))?;
        Ok(Documents {
            agent_toml,
            user_data: multipart::joined(cloud_config, self.group.user_data.as_ref()),
        })
    }

    fn user_data(&self) -> Result<Vec<u8>, Vec<Problem>> {
        let text = self.documents()?.user_data;
        let packed = user_data::packed(&text).map_err(|why| self.problem(why))?;
        if packed.len() > user_data::SIZE_MAX {
            return Err(self.problem(format!(
                "makes user data of {} bytes, gzip included: EC2 takes {}; shorten its sidecars, ecs settings and user_data",
                packed.len(),
                user_data::SIZE_MAX
            )));
        }
        Ok(packed)
    }

    fn parameter(&self) -> Result<Parameter, Vec<Problem>> {
        let live = Live::of(self.agent.config(), 0);
        let longest = live.numbered(REVISION_MAX).text();
        let size = longest.map_err(|why| self.problem(why))?.len();
        // A larger tier could never be left again.
        if size > LIVE_MAX {
            return Err(self.problem(format!(
                "makes an SSM parameter of {size} bytes: a standard one holds {LIVE_MAX}; shorten its sidecars"
            )));
        }
        Ok(Parameter {
            name: self.names.parameter.clone(),
            live,
        })
    }

    fn problem(&self, why: impl ToString) -> Vec<Problem> {
        vec![Problem {
            line: self.group.line,
            key: format!("groups.{}", self.group.name),
            message: why.to_string(),
        }]
    }
}

fn default_strategy(spec: &spec::Spec) -> Option<Vec<StrategyItem>> {
    let name = |provider: &spec::Provider| match provider {
        spec::Provider::Fargate(name) => name.clone(),
        spec::Provider::Group(group) => {
            GroupNames::new(&spec.fleet, &spec.environment, group, &spec.region).long
        }
    };
    let items = spec.cluster.default_strategy.as_ref()?.iter();
    let items = items.map(|item| StrategyItem {
        provider: name(&item.provider),
        weight: item.weight,
        base: item.base,
    });
    Some(items.collect())
}

fn image(ami: &spec::Ami) -> Image {
    let parameter = |of: &str| format!("{IMAGE_PARAMETERS}/{of}/image_id");
    match ami {
        spec::Ami::Optimized => Image::Parameter(parameter("recommended")),
        spec::Ami::Release(name) => Image::Release(parameter(name)),
        spec::Ami::Id(id) => Image::Pinned(id.clone()),
        spec::Ami::Tagged { owner, tags } => Image::Tagged {
            owner: owner.clone(),
            tags: tags.clone(),
        },
    }
}

/// The file's tags with those that say whose a resource is.
fn owned(spec: &spec::Spec, mut tags: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (key, value) in [
        (tag::NAME, &spec.fleet),
        (tag::ENVIRONMENT, &spec.environment),
        (tag::OWNER, &spec.owner),
    ] {
        tags.insert(key.to_owned(), value.clone());
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::FleetFile;

    const FILE: &str = include_str!("../../tests/fleet.toml");

    fn desired(text: &str) -> Result<Desired, Problems> {
        let spec = FleetFile::new("fleet.toml", text)
            .spec("dev")
            .expect("valid");
        build(&spec)
    }

    #[test]
    fn golden_resources() {
        let mut desired = desired(FILE).expect("builds");
        for group in &mut desired.groups {
            // These have goldens of their own.
            group.role.policy_template = serde_json::Value::Null;
            group.role.trust_policy = serde_json::Value::Null;
            group.launch_template.user_data.clear();
        }
        insta::assert_debug_snapshot!("desired", desired);
    }

    #[test]
    fn a_removed_group_has_the_names_it_had_in_the_file() {
        let desired = desired(FILE).expect("builds");
        for group in &desired.groups {
            let removed = removed(&desired.identity, &group.name);
            assert_eq!(removed.role.name, group.role.name);
            assert_eq!(removed.role.policy_name, group.role.policy_name);
            assert_eq!(removed.instance_profile, group.instance_profile);
            assert_eq!(removed.security_group.name, group.security_group.name);
            assert_eq!(removed.launch_template.name, group.launch_template.name);
            assert_eq!(
                removed.auto_scaling_group.name,
                group.auto_scaling_group.name
            );
            assert_eq!(removed.capacity_provider.name, group.capacity_provider.name);
            assert_eq!(removed.parameter.name, group.parameter.name);
            assert_eq!(removed.alarms, group.alarms);
        }
    }

    #[test]
    fn golden_agent_toml_is_what_the_agent_reads() {
        let spec = FleetFile::new("fleet.toml", FILE)
            .spec("dev")
            .expect("valid");
        let documents = documents(&spec, &spec.groups[1]).expect("renders");
        insta::assert_snapshot!("agent.toml", documents.agent_toml);
        let settings = fleet_agent_config::Settings::read("agent.toml", &documents.agent_toml)
            .expect("the agent takes it");
        assert_eq!(settings.drain.deadline_seconds, 1_800);
        assert_eq!(settings.drain.stops_standalone_after("nightly"), Some(600));
    }

    #[test]
    fn no_default_is_left_to_the_agents_version() {
        let spec = FleetFile::new("fleet.toml", FILE)
            .spec("dev")
            .expect("valid");
        for group in &spec.groups {
            let text = documents(&spec, group).expect("renders").agent_toml;
            for key in [
                "deadline_seconds",
                "rebalance",
                "impaired",
                "maintenance",
                "maintenance_lead_seconds",
                "soft_percent",
                "full",
                "replacement",
                "system_memory_mib",
                "block_metadata_service",
                "instance_tag",
                "stop_timeout_seconds",
            ] {
                assert!(text.contains(&format!("\n{key} = ")), "{key}: {text}");
            }
        }
    }

    #[test]
    fn only_nodes_that_are_told_apart_give_themselves_a_tag() {
        for (scope, tags) in [("cluster", false), ("instance", true)] {
            let file = format!("{FILE}\n[iam]\nscope = \"{scope}\"\n");
            let spec = FleetFile::new("fleet.toml", file).spec("dev");
            let spec = spec.expect("valid");
            let text = documents(&spec, &spec.groups[1])
                .expect("renders")
                .agent_toml;
            let line = format!("\ninstance_tag = {tags}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    /// ECS guide, managed scaling: the warm-up is the time until a new instance counts.
    #[test]
    fn a_node_is_warming_up_for_as_long_as_it_may_take_to_prove_itself() {
        for seconds in [30, 900, 7_200] {
            let text = FILE.replace(
                "launch_timeout_seconds = 900",
                &format!("launch_timeout_seconds = {seconds}"),
            );
            for group in desired(&text).expect("builds").groups {
                let launching = &group.auto_scaling_group.hooks[0];
                assert_eq!(launching.transition, Transition::Launching);
                assert_eq!(launching.timeout_seconds, seconds);
                assert!(group.capacity_provider.instance_warmup_seconds >= seconds);
            }
        }
    }

    #[test]
    fn sidecars_of_a_drain_take_the_longest_flush_and_every_stop() {
        let seconds: Vec<u32> = desired(FILE)
            .expect("builds")
            .groups
            .iter()
            .map(|group| group.drain.sidecars_seconds)
            .collect();
        assert_eq!(seconds, [25, 35], "batch has one sidecar less");
    }

    #[test]
    fn is_the_same_every_time() {
        assert_eq!(desired(FILE), desired(FILE));
    }

    #[test]
    fn a_parameter_may_fill_4_kb_and_not_a_byte_more() {
        let with = |length: usize| {
            desired(&format!(
                "{FILE}\n[sidecars.big]\nimage = \"big:1\"\ncommand = [\"{}\"]\n",
                "x".repeat(length)
            ))
        };
        let live = &with(0).expect("fits").groups[1].parameter.live;
        let used = live.numbered(REVISION_MAX).text().expect("JSON").len();
        assert!(with(LIVE_MAX - used).is_ok());
        let problems = with(LIVE_MAX - used + 1).expect_err("too long");
        let text = problems.to_string();
        assert!(
            text.contains("groups.web: makes an SSM parameter of 4097 bytes"),
            "{text}"
        );
        assert!(
            problems.problems.iter().all(|problem| problem.line > 0),
            "{text}"
        );
    }

    #[test]
    fn user_data_past_16_kb_is_refused() {
        // Digits of a counter's hash: gzip cannot shrink them below the limit.
        use sha2::{Digest, Sha256};
        let noise: String = (0..900_u32)
            .flat_map(|n| Sha256::digest(n.to_le_bytes()))
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let text =
            format!("{FILE}\n[environments.dev.groups.web.ecs]\nECS_DATADIR = \"/{noise}\"\n");
        let problems = desired(&text).expect_err("too long").to_string();
        assert!(
            problems.contains("groups.web: makes user data of"),
            "{problems}"
        );
        assert!(problems.contains("EC2 takes 16384"), "{problems}");
    }
}
