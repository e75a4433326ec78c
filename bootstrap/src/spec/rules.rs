//! The rules of `fleet.toml`: from the wire form to a [`Spec`], with everything that is wrong on
//! the way. A spec made from a file with problems holds gaps and is thrown away by the caller.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fleet_agent_config::{
    AutoScalingConfig, Config, DRAIN_TIMEOUT_DEFAULT, DiskConfig, DrainConfig, HealthConfig,
    LAUNCH_TIMEOUT_DEFAULT, NodeConfig, Problem, SidecarConfig, VERSION, ecs,
};

use super::{
    Agent, Group, Network, PROVIDERS_MAX, Spec, Spot, WarmPool, ami, cluster, drain, scaling,
    schedule, shapes, source, spot, step_scaling, tags, user_data, volume, wire,
};

/// Security groups of one network interface beside the fleet's own: what the quota can be raised to, and
/// what it is otherwise (VPC quotas).
const SECURITY_GROUPS_MAX: usize = 15;
const SECURITY_GROUPS_USUAL: usize = 4;
/// Container instances in one ECS cluster (ECS service quotas).
pub(super) const NODES_MAX: u32 = 5_000;
/// Overrides in one mixed-instances policy (Auto Scaling quotas).
const INSTANCE_TYPES_MAX: usize = 40;
/// Managed policies on one role, at most (IAM quotas); ten unless the account's quota was raised.
const POLICIES_MAX: usize = 20;

/// What the rules make of a file.
pub(super) struct Checked {
    pub(super) spec: Spec,
    pub(super) problems: Vec<Problem>,
    /// Things that work, but perhaps not as meant.
    pub(super) warnings: Vec<Problem>,
}

/// Applies every rule. `read` gives what other files hold that this one names, which are in `directory`.
pub(super) fn check(
    file: wire::File,
    environment: &str,
    read: user_data::Read<'_>,
    directory: &Path,
) -> Checked {
    let mut rules = Rules::default();
    let fleet = file.fleet;
    rules.check("fleet.name", shapes::fleet_name(&fleet.name));
    rules.check("fleet.region", shapes::region(&fleet.region));
    rules.check("fleet.id", shapes::owner(&fleet.id));
    rules.check(
        "fleet.account",
        fleet.account.as_deref().and_then(shapes::account),
    );
    let network = rules.network(file.network);
    if !file.environments.is_empty() {
        rules.check(
            "environments",
            Some("stands at the top of the file: an environment has none of its own".to_owned()),
        );
    }
    let agent = rules.agent(file.agent, directory);
    rules.tags("tags", &file.tags, true);
    rules.tags("cluster.tags", &file.cluster.tags, false);
    for (name, sidecar) in &file.sidecars {
        sidecar.clone().validate(name, &mut rules.problems);
    }
    if file.groups.is_empty() {
        rules.check(
            "groups",
            Some("is missing: add at least one table such as [groups.web]".to_owned()),
        );
    }
    if file.groups.len() > PROVIDERS_MAX {
        rules.check(
            "groups",
            Some(format!(
                "holds {}: each is a capacity provider, of which a cluster takes at most {PROVIDERS_MAX}",
                file.groups.len()
            )),
        );
    }
    let shared = Shared {
        agent: &agent,
        iam_scope: file.iam.scope.unwrap_or_default(),
        drain: &file.drain,
        disk: &file.disk,
        health: &file.health,
        tags: &file.tags,
        sidecars: &file.sidecars,
        is_alone: file.groups.len() == 1 && file.cluster.adopt.is_none(),
        read,
    };
    let names: Vec<String> = file.groups.keys().cloned().collect();
    let groups = file
        .groups
        .into_iter()
        .map(|(name, group)| rules.group(name, group, &shared))
        .collect();
    let cluster_tags = merged(&file.tags, file.cluster.tags.clone());
    tags::check_count("cluster.tags", cluster_tags.len(), &mut rules.problems);
    let account = fleet.account.clone();
    let account = account.or_else(|| cluster::account(&file.cluster));
    let cluster = cluster::read(file.cluster, &fleet, names.iter(), &mut rules.problems);
    Checked {
        spec: Spec {
            file: String::new(),
            environment: environment.to_owned(),
            fleet: fleet.name,
            region: fleet.region,
            owner: fleet.id,
            account,
            network,
            cluster,
            tags: file.tags,
            cluster_tags,
            agent,
            groups,
            warnings: Vec::new(),
        },
        problems: rules.problems,
        warnings: rules.warnings,
    }
}

/// What all groups have in common.
struct Shared<'a> {
    agent: &'a Agent,
    iam_scope: wire::IamScope,
    drain: &'a DrainConfig,
    disk: &'a DiskConfig,
    health: &'a HealthConfig,
    tags: &'a BTreeMap<String, String>,
    sidecars: &'a BTreeMap<String, SidecarConfig>,
    /// A group has the cluster to itself.
    is_alone: bool,
    read: user_data::Read<'a>,
}

#[derive(Default)]
struct Rules {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Rules {
    /// Notes what is wrong with the value at `key`, if anything is.
    fn check(&mut self, key: impl Into<String>, wrong: Option<String>) {
        self.problems
            .extend(wrong.map(|message| Problem::new(key, message)));
    }

    fn network(&mut self, network: wire::Network) -> Network {
        self.check("network.vpc", shapes::ec2_id("vpc", &network.vpc));
        if network.subnets.is_empty() {
            self.check(
                "network.subnets",
                Some("is missing: fill in at least one subnet of the VPC, best one per availability zone".to_owned()),
            );
        }
        for subnet in &network.subnets {
            self.check("network.subnets", shapes::ec2_id("subnet", subnet));
        }
        self.check("network.subnets", repeated(&network.subnets));
        Network {
            vpc_id: network.vpc,
            subnet_ids: network.subnets,
        }
    }

    fn agent(&mut self, agent: wire::Agent, directory: &Path) -> Agent {
        let read = |source| source::read("agent.source", source, directory, &mut self.problems);
        Agent {
            source: agent.source.and_then(read),
            launch_timeout_seconds: agent
                .launch_timeout_seconds
                .unwrap_or(LAUNCH_TIMEOUT_DEFAULT),
            drain_timeout_seconds: agent.drain_timeout_seconds.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
        }
    }

    fn tags(&mut self, table: &str, tags: &BTreeMap<String, String>, on_instances: bool) {
        tags::check(table, tags, on_instances, &mut self.problems);
    }

    fn group(&mut self, name: String, mut group: wire::Group, shared: &Shared<'_>) -> Group {
        let table = format!("groups.{name}");
        let key = |field: &str| format!("{table}.{field}");
        self.check(table.as_str(), shapes::name(&name));
        self.instance_types(&key("instance_types"), &group.instance_types);
        let (min, max, desired) = self.size(&table, &group);
        let ami = ami::read(&key("ami"), group.ami.take(), &mut self.problems);
        let root_volume = std::mem::take(&mut group.root_volume);
        let root_volume = volume::root(&key("root_volume"), root_volume, &mut self.problems);
        let docker_volume = group.docker_volume.take();
        let docker_volume = docker_volume
            .map(|volume| volume::docker(&key("docker_volume"), volume, &mut self.problems));
        self.cpu_credits(&key("cpu_credits"), &group);
        let wrong = group.key_pair.as_deref().and_then(shapes::key_pair);
        self.check(key("key_pair"), wrong);
        self.security_groups(&key("security_groups"), &group.security_groups);
        self.role(&table, &group);
        self.problems
            .extend(scaling::warm_pool(&key("warm_pool"), &group));
        let schedules = std::mem::take(&mut group.schedules);
        self.problems
            .extend(schedule::problems(&key("schedules"), schedules.iter()));
        let spot = group.spot.take().map(|wanted| {
            self.problems.extend(spot::problems(&key("spot"), &wanted));
            self.warnings
                .extend(spot::warning(&key("spot"), &group.instance_types));
            Spot::from(wanted)
        });
        let wrong = group.max_lifetime_days.and_then(scaling::lifetime);
        self.check(key("max_lifetime_days"), wrong);
        let found = step_scaling::check(&table, &group, shared.is_alone);
        self.problems.extend(found.problems);
        self.warnings.extend(found.warnings);
        let scaling = step_scaling::read(&group);
        if shared.agent.source.is_none() && ami.is_amazons() {
            self.warnings.push(Problem::new(
                table.as_str(),
                "gets no fleet-agent: set `ami` to an image that carries it, or [agent] source to download it; without either no node becomes ready",
            ));
        }
        let names = group.sidecars.take();
        let sidecars_key = match names {
            Some(_) => key("sidecars"),
            None => "sidecars".to_owned(),
        };
        let sidecars = self.chosen_sidecars(&key("sidecars"), names, shared.sidecars);
        let drain = drain::inherited(shared.drain, &group.drain);
        let node = NodeConfig {
            system_memory_mib: group.system_memory_mib,
            block_metadata_service: group.block_metadata_service,
            instance_tag: (shared.iam_scope == wire::IamScope::Instance).then_some(true),
        };
        let config = Config {
            version: VERSION,
            auto_scaling: AutoScalingConfig {
                launch_timeout_seconds: Some(shared.agent.launch_timeout_seconds),
                drain_timeout_seconds: Some(shared.agent.drain_timeout_seconds),
                ..AutoScalingConfig::default()
            },
            drain: drain.clone(),
            disk: group.disk.or(*shared.disk),
            health: group.health.or(*shared.health),
            node,
            ecs: group.ecs.clone(),
            sidecars: sidecars.clone(),
            ..Config::default()
        };
        self.agent_rules(&table, &sidecars_key, &group, config, shared.drain);
        let user_data = group.user_data.take();
        let user_data = user_data.and_then(|file| {
            let (own, found) = user_data::own(&key("user_data"), file, shared.read);
            self.problems.extend(found.problems);
            self.warnings.extend(found.warnings);
            own
        });
        self.tags(&key("tags"), &group.tags, true);
        let tags = merged(shared.tags, group.tags);
        tags::check_count(&key("tags"), tags.len(), &mut self.problems);
        Group {
            name,
            line: 0,
            instance_types: group.instance_types,
            min,
            max,
            desired,
            ami,
            root_volume,
            docker_volume,
            cpu_credits: group.cpu_credits,
            detailed_monitoring: group.detailed_monitoring,
            key_pair: group.key_pair,
            security_groups: group.security_groups,
            role: group.role,
            permissions_boundary: group.permissions_boundary,
            policies: group.policies,
            spot,
            metrics: group.metrics,
            max_lifetime_days: group.max_lifetime_days,
            deletion_protection: group.deletion_protection,
            zone_distribution: group.zone_distribution,
            warm_pool: group.warm_pool.as_ref().map(WarmPool::from),
            schedules: schedules
                .into_iter()
                .map(|(name, schedule)| (name, schedule.into()))
                .collect(),
            scaling,
            disk: group.disk.or(*shared.disk).completed(),
            health: group.health.or(*shared.health).completed(),
            node: node.completed(),
            user_data,
            drain: drain.completed(),
            ecs: group.ecs,
            sidecars: sidecars
                .into_iter()
                .map(|(name, sidecar)| (name, sidecar.completed()))
                .collect(),
            tags,
        }
    }

    fn instance_types(&mut self, key: &str, types: &[String]) {
        if types.is_empty() {
            self.check(
                key,
                Some("is missing: fill in at least one, such as [\"m7i.large\"]".to_owned()),
            );
        }
        if types.len() > INSTANCE_TYPES_MAX {
            self.check(
                key,
                Some(format!(
                    "holds {}: Auto Scaling takes at most {INSTANCE_TYPES_MAX}",
                    types.len()
                )),
            );
        }
        for value in types {
            self.check(key, shapes::instance_type(value));
        }
        self.check(key, repeated(types));
    }

    /// EC2 refuses to launch a type that has no credits with a setting for them.
    fn cpu_credits(&mut self, key: &str, group: &wire::Group) {
        let mut types = group.instance_types.iter();
        match group.cpu_credits {
            Some(_) => {
                let other = types.find(|kind| !shapes::is_burstable(kind));
                self.check(
                    key,
                    other.map(|kind| {
                        format!("is for burstable types, and `{kind}` does not launch with it")
                    }),
                );
            }
            None => {
                if let Some(burstable) = types.find(|kind| shapes::is_burstable(kind)) {
                    let why = format!(
                        "is missing, and `{burstable}` is burstable: EC2 takes \"unlimited\" for most, which may cost more; say \"standard\" or \"unlimited\""
                    );
                    self.warnings.push(Problem::new(key, why));
                }
            }
        }
    }

    fn security_groups(&mut self, key: &str, ids: &[String]) {
        for id in ids {
            self.check(key, shapes::ec2_id("sg", id));
        }
        self.check(key, repeated(ids));
        let held = format!("holds {}: beside the fleet's own a node takes", ids.len());
        if ids.len() > SECURITY_GROUPS_MAX {
            self.check(key, Some(format!("{held} at most {SECURITY_GROUPS_MAX}")));
        } else if ids.len() > SECURITY_GROUPS_USUAL {
            let why =
                format!("{held} {SECURITY_GROUPS_USUAL} unless the account's quota was raised");
            self.warnings.push(Problem::new(key, why));
        }
    }

    fn role(&mut self, table: &str, group: &wire::Group) {
        let key = |field: &str| format!("{table}.{field}");
        let of_ours = |is_set: bool| {
            let why = "is for a role that fleet makes, and `role` names one that it never changes";
            (is_set && group.role.is_some()).then(|| why.to_owned())
        };
        self.check(
            key("role"),
            group.role.as_deref().and_then(shapes::role_name),
        );
        let boundary = group.permissions_boundary.as_deref();
        let wrong = of_ours(boundary.is_some());
        self.check(
            key("permissions_boundary"),
            wrong.or_else(|| boundary.and_then(shapes::policy_arn)),
        );
        self.check(key("policies"), of_ours(!group.policies.is_empty()));
        for arn in &group.policies {
            self.check(key("policies"), shapes::policy_arn(arn));
        }
        self.check(key("policies"), repeated(&group.policies));
        let held = group.policies.len();
        let wrong = (held > POLICIES_MAX)
            .then(|| format!("holds {held}: IAM attaches at most {POLICIES_MAX} to a role"));
        self.check(key("policies"), wrong);
    }

    /// Lower bound, upper bound and size at creation.
    fn size(&mut self, table: &str, group: &wire::Group) -> (u32, u32, u32) {
        let key = |field: &str| format!("{table}.{field}");
        let missing = |what: &str| Some(format!("is missing: fill in {what}"));
        if group.min.is_none() {
            self.check(key("min"), missing("the least number of nodes, 0 or more"));
        }
        let Some(max) = group.max else {
            self.check(
                key("max"),
                missing("the greatest number of nodes, 1 or more"),
            );
            return (0, 0, 0);
        };
        let min = group.min.unwrap_or(0);
        let desired = group.desired.unwrap_or(min);
        let outside_aws = outside(
            max,
            1,
            NODES_MAX,
            "a capacity provider needs room for a node, and a cluster takes no more",
        );
        if outside_aws.is_some() {
            self.check(key("max"), outside_aws);
        } else if min > max {
            self.check(key("min"), Some(format!("{min} is above max, {max}")));
        } else if !(min..=max).contains(&desired) {
            self.check(
                key("desired"),
                Some(format!("{desired} is outside min to max, {min} to {max}")),
            );
        }
        (min, max, desired)
    }

    /// What the agent itself would refuse, said of this file's keys. The names in agent.toml are
    /// made from ones checked above, so what the agent says of those is left out.
    fn agent_rules(
        &mut self,
        table: &str,
        sidecars_key: &str,
        group: &wire::Group,
        config: Config,
        shared_drain: &DrainConfig,
    ) {
        let mut found = Vec::new();
        config.validate(&mut found);
        for problem in found {
            let key = match problem.key.as_str() {
                "auto_scaling.launch_timeout_seconds" => "agent.launch_timeout_seconds".to_owned(),
                "auto_scaling.drain_timeout_seconds" => "agent.drain_timeout_seconds".to_owned(),
                // Of all of them together; each for itself has been checked where it stands.
                "sidecars" => sidecars_key.to_owned(),
                setting if setting.starts_with("ecs.") => format!("{table}.{setting}"),
                setting if let Some(field) = setting.strip_prefix("node.") => {
                    format!("{table}.{field}")
                }
                // Where the value stands: a group that has none of its own has that of all.
                setting if setting.starts_with("disk.") || setting.starts_with("health.") => {
                    let is_own = match setting.starts_with("disk.") {
                        true => !group.disk.is_empty(),
                        false => group.health.replace_at_once.is_some(),
                    };
                    if is_own {
                        format!("{table}.{setting}")
                    } else {
                        setting.to_owned()
                    }
                }
                setting => match setting.strip_prefix("drain.") {
                    Some(field) => {
                        let problem =
                            drain::told(field, problem.message, table, &group.drain, shared_drain);
                        self.problems.push(problem);
                        continue;
                    }
                    None => continue,
                },
            };
            self.check(key, Some(problem.message));
        }
        for name in group.ecs.keys().filter(|name| !ecs::is_known(name)) {
            self.warnings.push(Problem::new(
                format!("{table}.ecs.{name}"),
                "is not known to this build and is passed on to the ECS agent as it is",
            ));
        }
    }

    /// The sidecars a group names, or all of them.
    fn chosen_sidecars(
        &mut self,
        key: &str,
        names: Option<Vec<String>>,
        known: &BTreeMap<String, SidecarConfig>,
    ) -> BTreeMap<String, SidecarConfig> {
        let Some(names) = names else {
            return known.clone();
        };
        self.check(key, repeated(&names));
        let mut chosen = BTreeMap::new();
        for name in names {
            match known.get(&name) {
                Some(sidecar) => {
                    chosen.insert(name, sidecar.clone());
                }
                None => self.check(
                    key,
                    Some(format!(
                        "`{name}` has no [sidecars.{name}]{}",
                        listed(known.keys())
                    )),
                ),
            }
        }
        chosen
    }
}

/// `over` laid over `base`.
fn merged(
    base: &BTreeMap<String, String>,
    over: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut merged = base.clone();
    merged.extend(over);
    merged
}

pub(super) fn outside(value: u32, least: u32, most: u32, why: &str) -> Option<String> {
    (!(least..=most).contains(&value))
        .then(|| format!("{value} is outside {least} to {most}: {why}"))
}

fn repeated(values: &[String]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = values.iter().find(|value| !seen.insert(*value))?;
    Some(format!("holds `{twice}` twice"))
}

/// `: the file has a, b`, or nothing when there is nothing to choose from.
pub(super) fn listed<S: AsRef<str>>(known: impl Iterator<Item = S>) -> String {
    let known: Vec<String> = known.map(|name| name.as_ref().to_owned()).collect();
    if known.is_empty() {
        String::new()
    } else {
        format!(": the file has {}", known.join(", "))
    }
}
