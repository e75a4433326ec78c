//! `agent.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Disk, DiskConfig, Document, Drain, DrainConfig, Health, HealthConfig, Node, NodeConfig,
    Problem, Problems, Sidecar, SidecarConfig, drain, ecs, names, order::order, secrets,
};

/// The version of the contract this crate reads and writes.
pub const VERSION: u32 = 1;

/// Why a file of this version of the contract cannot be read here, if it cannot.
pub(crate) fn foreign(version: u32) -> Option<String> {
    let newer = if version > VERSION {
        ": a newer fleet-agent reads it"
    } else {
        ""
    };
    (version != VERSION)
        .then(|| format!("is {version}, and this program reads version {VERSION}{newer}"))
}

/// How long a node has to prove itself, seconds. Auto Scaling's own default of an hour would let a
/// broken launch template burn an hour of instances before anybody hears of it.
pub const LAUNCH_TIMEOUT_DEFAULT: u32 = 600;
/// Hook time-out of `fleet-drain`, seconds: short, since a node that was powered off cannot answer.
pub const DRAIN_TIMEOUT_DEFAULT: u32 = 300;
/// Auto Scaling's limits of a hook's heartbeat time-out, seconds (PutLifecycleHook).
const HOOK_TIMEOUT: std::ops::RangeInclusive<u32> = 30..=7_200;

/// The wire form of `agent.toml`. Every field has a default so that all errors can be reported at
/// once; what is required is checked by [`Config::validate`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of this contract.
    pub version: u32,
    /// `fleet.name`.
    pub fleet: String,
    /// The environment.
    pub environment: String,
    /// The group.
    pub group: String,
    /// The fleet's owner id.
    pub owner: String,
    /// ECS cluster to join.
    pub cluster: String,
    /// AWS region.
    pub region: String,
    /// The group as Auto Scaling knows it.
    pub auto_scaling: AutoScalingConfig,
    /// How the node leaves.
    pub drain: DrainConfig,
    /// When a disk counts as low or full.
    #[serde(skip_serializing_if = "DiskConfig::is_empty")]
    pub disk: DiskConfig,
    /// What becomes of the node if it stays impaired.
    #[serde(skip_serializing_if = "HealthConfig::is_empty")]
    pub health: HealthConfig,
    /// What the node keeps for itself, and from its tasks.
    #[serde(skip_serializing_if = "NodeConfig::is_empty")]
    pub node: NodeConfig,
    /// Where newer live settings may stand.
    pub parameter: ParameterConfig,
    /// `ECS_*` settings, checked by [`ecs::check`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ecs: BTreeMap<String, String>,
    /// Containers beside ECS.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sidecars: BTreeMap<String, SidecarConfig>,
}

/// `[auto_scaling]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoScalingConfig {
    /// Name of the Auto Scaling group.
    pub group: String,
    /// Name of the launching hook; default [`names::LAUNCH_HOOK`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_hook: Option<String>,
    /// How long a node has to prove itself, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_timeout_seconds: Option<u32>,
    /// Name of the terminating hook; default [`names::DRAIN_HOOK`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_hook: Option<String>,
    /// The terminating hook's heartbeat time-out, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_seconds: Option<u32>,
}

/// `[parameter]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParameterConfig {
    /// SSM parameter that may carry a newer revision of the live settings.
    pub name: String,
}

/// Settings whose every rule has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// `fleet.name`.
    pub fleet: String,
    /// The environment.
    pub environment: String,
    /// The group.
    pub group: String,
    /// The fleet's owner id.
    pub owner: String,
    /// ECS cluster to join.
    pub cluster: String,
    /// AWS region.
    pub region: String,
    /// Name of the Auto Scaling group.
    pub auto_scaling_group: String,
    /// Name of the launching hook.
    pub launch_hook: String,
    /// How long a node has to prove itself, seconds.
    pub launch_timeout_seconds: u32,
    /// Name of the terminating hook.
    pub drain_hook: String,
    /// The terminating hook's heartbeat time-out, seconds.
    pub drain_timeout_seconds: u32,
    /// How the node leaves.
    pub drain: Drain,
    /// When a disk counts as low or full, and what is done then.
    pub disk: Disk,
    /// What becomes of the node if it stays impaired.
    pub health: Health,
    /// What the node keeps for itself, and from its tasks.
    pub node: Node,
    /// SSM parameter with newer live settings.
    pub parameter: String,
    /// Checked `ECS_*` settings.
    pub ecs: BTreeMap<String, String>,
    /// In starting order: those needed before tasks first, then by name.
    pub sidecars: Vec<Sidecar>,
}

impl Settings {
    /// Reads `agent.toml`.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn read(file: &str, source: &str) -> Result<Self, Problems> {
        Config::read(file, source).map(|(_, settings)| settings)
    }
}

impl Config {
    /// Reads `agent.toml`: as it stands, and what it comes to.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn read(file: &str, source: &str) -> Result<(Self, Settings), Problems> {
        let document = Document::parse(file, source)?;
        let (config, mut problems) = document.read::<Self>();
        // A key that could not be read is reported once, not a second time as missing.
        let unreadable: Vec<String> = problems.iter().map(|p| p.key.clone()).collect();
        let mut broken = Vec::new();
        let settings = config.clone().validate(&mut broken);
        problems.extend(broken.into_iter().filter(|p| !unreadable.contains(&p.key)));
        document.check(problems)?;
        let settings = settings.ok_or_else(|| Problems {
            file: file.to_owned(),
            problems: vec![Problem::new("", "could not be read")],
        })?;
        Ok((config, settings))
    }

    /// Checks every rule; what is wrong is added to `problems`.
    pub fn validate(self, problems: &mut Vec<Problem>) -> Option<Settings> {
        let before = problems.len();
        problems.extend(foreign(self.version).map(|why| Problem::new("version", why)));
        for (key, value) in [
            ("fleet", &self.fleet),
            ("environment", &self.environment),
            ("group", &self.group),
            ("owner", &self.owner),
            ("cluster", &self.cluster),
            ("region", &self.region),
            ("auto_scaling.group", &self.auto_scaling.group),
            ("parameter.name", &self.parameter.name),
        ] {
            if value.trim().is_empty() {
                problems.push(Problem::new(key, "is missing or empty"));
            } else if value.contains(char::is_whitespace) {
                problems.push(Problem::new(key, format!("`{value}` must not hold spaces")));
            }
        }
        let hook = |value: Option<u32>, default: u32, key: &str, problems: &mut Vec<Problem>| {
            let value = value.unwrap_or(default);
            if !HOOK_TIMEOUT.contains(&value) {
                problems.push(Problem::new(
                    key,
                    format!(
                        "{value} is outside Auto Scaling's {} to {}",
                        HOOK_TIMEOUT.start(),
                        HOOK_TIMEOUT.end()
                    ),
                ));
            }
            value
        };
        let scaling = self.auto_scaling;
        let launch_timeout_seconds = hook(
            scaling.launch_timeout_seconds,
            LAUNCH_TIMEOUT_DEFAULT,
            "auto_scaling.launch_timeout_seconds",
            problems,
        );
        let drain_timeout_seconds = hook(
            scaling.drain_timeout_seconds,
            DRAIN_TIMEOUT_DEFAULT,
            "auto_scaling.drain_timeout_seconds",
            problems,
        );
        let drain = self.drain.validate(drain_timeout_seconds, problems);
        let disk = self.disk.validate(problems);
        let health = self.health.validate(problems);
        let node = self.node.validate(problems);
        for (name, value) in &self.ecs {
            // First, since the other rules quote the value.
            if let Some(why) = secrets::literal(name, value) {
                problems.push(Problem::new(
                    format!("ecs.{name}"),
                    format!("{why}: user data must hold none"),
                ));
            } else {
                problems.extend(ecs::check(name, value));
            }
        }
        if node.instance_tag {
            problems.extend(ecs::tag_conflict(&self.ecs));
        }
        let named = self.sidecars.len();
        let sidecars: Vec<Sidecar> = self
            .sidecars
            .into_iter()
            .filter_map(|(name, sidecar)| sidecar.validate(&name, problems))
            .collect();
        // One that is left out for its own mistakes would be missed by others.
        let sidecars = match sidecars.len() == named {
            true => order(sidecars, problems),
            false => sidecars,
        };
        drain::check_sidecars(&sidecars, problems);
        (problems.len() == before).then(|| Settings {
            fleet: self.fleet,
            environment: self.environment,
            group: self.group,
            owner: self.owner,
            cluster: self.cluster,
            region: self.region,
            auto_scaling_group: scaling.group,
            launch_hook: scaling
                .launch_hook
                .unwrap_or_else(|| names::LAUNCH_HOOK.to_owned()),
            launch_timeout_seconds,
            drain_hook: scaling
                .drain_hook
                .unwrap_or_else(|| names::DRAIN_HOOK.to_owned()),
            drain_timeout_seconds,
            drain,
            disk,
            health,
            node,
            parameter: self.parameter.name,
            ecs: self.ecs,
            sidecars,
        })
    }
}

/// The text of an `agent.toml`.
///
/// # Errors
/// None for a [`Config`] built from strings and numbers; the type is toml's.
pub fn render(config: &Config) -> Result<String, toml::ser::Error> {
    toml::to_string(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first version ever shipped: it must stay readable for good.
    const GOLDEN_V1: &str = include_str!("../golden/agent-v1.toml");

    #[test]
    fn the_golden_file_is_read_and_written_back_unchanged() {
        let settings = Settings::read("agent.toml", GOLDEN_V1).expect("golden file");
        assert_eq!(settings.drain_timeout_seconds, 300);
        assert_eq!(
            settings
                .sidecars
                .iter()
                .map(|s| s.name.as_str())
                .collect::<Vec<_>>(),
            ["node-logs", "metrics"],
            "those before tasks come first"
        );
        let document = Document::parse("agent.toml", GOLDEN_V1).expect("syntax");
        let (config, problems) = document.read::<Config>();
        assert_eq!(problems, []);
        assert_eq!(render(&config).expect("renders"), GOLDEN_V1);
    }

    /// Files of every version ever shipped, and those with every key that a version has: all of them stay
    /// readable for good. A key that is added gets a default, and a file of its own.
    #[test]
    fn what_was_ever_written_is_read_and_written_back_unchanged() {
        let full = include_str!("../golden/agent-v1-full.toml");
        for golden in [GOLDEN_V1, full] {
            let document = Document::parse("agent.toml", golden).expect("syntax");
            let (config, problems) = document.read::<Config>();
            assert_eq!(problems, []);
            assert_eq!(render(&config).expect("renders"), golden);
            Settings::read("agent.toml", golden).expect("valid");
        }
    }

    #[test]
    fn a_version_that_is_not_known_is_refused_and_told_apart_from_an_older_one() {
        for (version, told) in [
            (
                "2",
                "is 2, and this program reads version 1: a newer fleet-agent reads it",
            ),
            ("0", "is 0, and this program reads version 1"),
        ] {
            let source = GOLDEN_V1.replace("version = 1", &format!("version = {version}"));
            let problems = Settings::read("agent.toml", &source).expect_err("must be refused");
            assert_eq!(problems.problems[0].key, "version");
            assert_eq!(problems.problems[0].message, told);
        }
    }

    #[test]
    fn every_error_is_reported_at_once_with_its_line() {
        let source = GOLDEN_V1
            .replace("version = 1", "version = 9")
            .replace("cluster = \"shop-dev\"\n", "")
            .replace("ECS_LOGLEVEL = \"info\"", "ECS_LOGLEVEL = \"loud\"")
            .replace("deadline_seconds = 1800", "deadline_seconds = \"long\"")
            .replace("before_tasks", "before_task");
        let problems = Settings::read("agent.toml", &source).expect_err("must be refused");
        let keys: Vec<_> = problems.problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "cluster",
                "version",
                "drain.deadline_seconds",
                "ecs.ECS_LOGLEVEL",
                "sidecars.node-logs.before_task"
            ]
        );
        assert!(
            problems
                .to_string()
                .contains("did you mean `before_tasks`?"),
            "{problems}"
        );
    }

    #[test]
    fn a_deadline_longer_than_the_hook_can_be_held_is_refused() {
        let source = GOLDEN_V1.replace("deadline_seconds = 1800", "deadline_seconds = 30001");
        let problems = Settings::read("agent.toml", &source).expect_err("must be refused");
        assert_eq!(problems.problems[0].key, "drain.deadline_seconds");
    }

    #[test]
    fn sidecars_that_do_not_fit_into_a_spot_notice_are_refused() {
        let source = GOLDEN_V1.replace("stop_timeout_seconds = 20", "stop_timeout_seconds = 51");
        let problems = Settings::read("agent.toml", &source).expect_err("must be refused");
        assert_eq!(problems.problems[0].key, "sidecars");
    }

    #[test]
    fn a_node_s_own_tag_goes_with_other_tags_but_not_with_another_of_its_name() {
        let with = |tags: &str| {
            let source = GOLDEN_V1.replace(
                "[ecs]\n",
                &format!(
                    "[node]\ninstance_tag = true\n\n[ecs]\nECS_CONTAINER_INSTANCE_TAGS = '{tags}'\n"
                ),
            );
            Settings::read("agent.toml", &source)
        };
        assert!(with(r#"{"team":"web"}"#).expect("valid").node.instance_tag);
        let problems = with(r#"{"fleet:instance":"x"}"#).expect_err("two of a name");
        assert_eq!(problems.problems[0].key, "ecs.ECS_CONTAINER_INSTANCE_TAGS");
        let many: Vec<String> = (0..50).map(|n| format!("\"k{n}\":\"v\"")).collect();
        let problems = with(&format!("{{{}}}", many.join(","))).expect_err("too many");
        assert!(
            problems.to_string().contains("leaves no room"),
            "{problems}"
        );
    }

    #[test]
    fn an_empty_file_names_everything_that_is_missing() {
        let problems = Settings::read("agent.toml", "").expect_err("must be refused");
        assert_eq!(problems.problems.len(), 9, "{problems}");
    }
}
