//! What the ECS agent makes of its files: each value, where it comes from, and what in them would
//! surprise whoever wrote it. Pure.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use fleet_agent_config::{Settings, ecs};
use serde::Serialize;

use super::render::{Layers, arn, layers, merge, variable};

/// What is not shown: it holds a registry's password.
const SECRET: &str = "ECS_ENGINE_AUTH_DATA";

/// Who sets a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// `[ecs]` of agent.toml.
    Settings,
    /// This agent, from the rest of agent.toml.
    Fleet,
    /// Somebody else's line in `/etc/ecs/ecs.config`.
    Etc,
    /// Somebody else's line in `/var/lib/ecs/ecs.config`.
    Image,
    /// The ECS agent itself.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Settings => "agent.toml",
            Self::Fleet => "fleet-agent",
            Self::Etc => "/etc/ecs/ecs.config",
            Self::Image => "/var/lib/ecs/ecs.config",
            Self::Default => "default",
        })
    }
}

/// One variable as the ECS agent has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Effective {
    pub(crate) name: String,
    /// Empty where the ECS agent finds it out by itself.
    pub(crate) value: String,
    pub(crate) source: Source,
    /// Why the ECS agent does not do what the value seems to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// The files as they are: what is not there is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'f> {
    /// `/etc/ecs/ecs.config`.
    pub(crate) etc: &'f str,
    /// `/var/lib/ecs/ecs.config`.
    pub(crate) image: &'f str,
}

/// Every variable, by name: those that this build knows, and all that stand in the files once
/// `settings` are applied.
pub(crate) fn effective(settings: &Settings, files: Files<'_>) -> Vec<Effective> {
    let layers = layers(settings, arn(files.etc).as_deref());
    let none = Default::default();
    let etc = read(&merge(files.etc, &layers.managed, &none));
    let image = read(&merge(files.image, &layers.defaults, &none));
    let mut found: BTreeMap<String, (String, Source)> = ecs::VARIABLES
        .iter()
        .map(|(name, _, default)| ((*name).to_owned(), ((*default).to_owned(), Source::Default)))
        .collect();
    // The later wins, as it does for ecs-init.
    for (name, value) in image {
        let source = match layers.defaults.contains_key(&name) {
            true => Source::Fleet,
            false => Source::Image,
        };
        found.insert(name, (value, source));
    }
    for (name, value) in etc {
        let source = managed_by(&name, settings, &layers);
        found.insert(name, (value, source));
    }
    let each = found.into_iter().map(|(name, (value, source))| Effective {
        problem: problem(&name, &value, source),
        value: if name == SECRET && !value.is_empty() {
            "(not shown)".to_owned()
        } else {
            value
        },
        name,
        source,
    });
    each.collect()
}

/// What an operator should know of the files: `(code, text)`.
pub(crate) fn hazards(settings: &Settings, files: Files<'_>) -> Vec<(&'static str, String)> {
    let of_values = effective(settings, files).into_iter().filter_map(|found| {
        let problem = found.problem?;
        Some((
            "value",
            format!("{}: {}: {problem}", found.source, found.name),
        ))
    });
    let lines = |file: &'static str, text: &str| {
        let mut found = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("export ") {
                let name = name.split('=').next().unwrap_or(name);
                found.push((
                    "export",
                    format!("{file}: `export {name}`: ecs-init reads bare NAME=value lines, and takes `export {name}` for a name"),
                ));
            }
        }
        found
    };
    of_values
        .chain(lines("/etc/ecs/ecs.config", files.etc))
        .chain(lines("/var/lib/ecs/ecs.config", files.image))
        .collect()
}

/// For people: what is set, then what is left to the ECS agent, then what to look at.
pub(crate) fn table(found: &[Effective], hazards: &[(&'static str, String)]) -> String {
    let (defaults, set): (Vec<_>, Vec<_>) = found
        .iter()
        .partition(|found| found.source == Source::Default);
    let width = |of: fn(&Effective) -> usize| found.iter().map(of).max().unwrap_or(0);
    let name = width(|found| found.name.len());
    let mut text = String::new();
    for found in set {
        let _ = writeln!(
            text,
            "{:name$}  {:24}  {}",
            found.name, found.source, found.value
        );
    }
    let _ = writeln!(text, "\nleft to the ECS agent:");
    for found in defaults {
        let value = if found.value.is_empty() {
            "-"
        } else {
            &found.value
        };
        let _ = writeln!(text, "{:name$}  {value}", found.name);
    }
    if !hazards.is_empty() {
        let _ = writeln!(text, "\nlook at:");
    }
    for (_, hazard) in hazards {
        let _ = writeln!(text, "{hazard}");
    }
    text
}

/// What has changed of that which counts at registration alone.
pub(crate) fn outdated(
    registered: &BTreeMap<String, String>,
    found: &[Effective],
) -> Vec<(&'static str, String)> {
    let changed = registered.iter().filter_map(|(name, old)| {
        let now = &found.iter().find(|found| found.name == *name)?.value;
        (now != old).then(|| {
            if name == "ECS_CLUSTER" {
                let text = format!(
                    "the ECS agent's checkpoint is of cluster {old}, and it would not start in {now}: \
                     replace this node, or remove /var/lib/ecs/data"
                );
                return ("stale-checkpoint", text);
            }
            ("needs-a-roll", format!("{name} is {now} now, but ECS was told {old} when this node registered: it needs a new node"))
        })
    });
    changed.collect()
}

/// What cloud-init has made of this boot, from its result.json, and what it was given, its user data.
pub(crate) fn of_cloud_init(result: &str, user_data: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if result.contains("DataSourceNone") {
        let text = "cloud-init found no data source (DataSourceNone): ECS agents from 1.105 on do not \
                    start then (amazon-ecs-agent #4988)";
        found.push(("no-data-source", text.to_owned()));
    }
    let json = serde_json::from_str::<serde_json::Value>(user_data).ok();
    if json.is_some_and(|json| json.get("ECSAgentConfiguration").is_some()) {
        let text = "user data holds ECSAgentConfiguration, which overrides the ECS agent's defaults \
                    for whatever is not set in ecs.config";
        found.push(("user-data", text.to_owned()));
    }
    found
}

fn managed_by(name: &str, settings: &Settings, layers: &Layers) -> Source {
    if settings.ecs.contains_key(name) {
        Source::Settings
    } else if layers.managed.contains_key(name) {
        Source::Fleet
    } else {
        Source::Etc
    }
}

/// What agent.toml says was checked when it was read; lines of others were not.
fn problem(name: &str, value: &str, source: Source) -> Option<String> {
    if !matches!(source, Source::Etc | Source::Image) {
        return None;
    }
    if ecs::is_known(name) {
        // The value is quoted in no message that others read, if it may be a secret.
        return ecs::refusal(name, value).map(|why| {
            if name == SECRET {
                "is not what the ECS agent takes".to_owned()
            } else {
                why
            }
        });
    }
    ecs::misspelt(name)
}

fn read(text: &str) -> Vec<(String, String)> {
    let set = text.lines().filter_map(|line| {
        let name = variable(line)?;
        let (_, value) = line.split_once('=')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    set.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let golden = include_str!("../../config/golden/agent-v1.toml");
        Settings::read("agent.toml", golden).expect("valid")
    }

    fn of(files: Files<'_>, name: &str) -> Effective {
        let found = effective(&settings(), files);
        let found = found.into_iter().find(|found| found.name == name);
        found.unwrap_or_else(|| panic!("{name} is not there"))
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let files = Files {
            etc: "ECS_LOGLEVEL=crit\nECS_POLL_METRICS=true\nECS_CLUSTER=other\n",
            image: "ECS_ENABLE_GPU_SUPPORT=true\nECS_POLL_METRICS=false\nECS_NEW=1\n",
        };
        for (name, value, source) in [
            ("ECS_CLUSTER", "shop-dev", Source::Fleet),
            ("ECS_LOGLEVEL", "info", Source::Settings),
            ("ECS_POLL_METRICS", "true", Source::Etc),
            ("ECS_ENABLE_GPU_SUPPORT", "true", Source::Image),
            ("ECS_CONTAINER_STOP_TIMEOUT", "30s", Source::Fleet),
            ("ECS_CONTAINER_START_TIMEOUT", "3m", Source::Default),
            ("ECS_NEW", "1", Source::Image),
        ] {
            let found = of(files, name);
            assert_eq!(
                (found.value.as_str(), found.source),
                (value, source),
                "{name}"
            );
            assert_eq!(found.problem, None, "{name}");
        }
    }

    #[test]
    fn what_counts_at_registration_alone_is_told_when_it_changes() {
        let files = Files { etc: "", image: "" };
        let found = effective(&settings(), files);
        let registered = |cluster: &str, memory: &str| {
            let pairs = [("ECS_CLUSTER", cluster), ("ECS_RESERVED_MEMORY", memory)];
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        assert_eq!(outdated(&registered("shop-dev", "192"), &found), []);
        let told = outdated(&registered("other", "64"), &found);
        assert_eq!(
            told.iter().map(|(code, _)| *code).collect::<Vec<_>>(),
            ["stale-checkpoint", "needs-a-roll"]
        );
        assert!(
            told[1].1.contains("is 192 now, but ECS was told 64"),
            "{}",
            told[1].1
        );
    }

    #[test]
    fn cloud_inits_troubles_are_the_ecs_agents() {
        let told = |result: &str, data: &str| of_cloud_init(result, data).len();
        assert_eq!(
            told(
                r#"{"v1": {"datasource": "DataSourceEc2Local", "errors": []}}"#,
                "#cloud-config"
            ),
            0
        );
        assert_eq!(
            told(
                r#"{"v1": {"datasource": "DataSourceNone", "errors": []}}"#,
                ""
            ),
            1
        );
        assert_eq!(
            told("", r#"{"ECSAgentConfiguration": {"Cluster": "x"}}"#),
            1
        );
    }

    #[test]
    fn what_others_wrote_is_checked_too_and_secrets_are_not_shown() {
        let files = Files {
            etc: "ECS_LOGFILE=\"/log/x\"\nECS_ENGINE_AUTH_DATA={hunter2\nECS_LOGLEVL=info\n\
                  export ECS_POLL_METRICS=true\n#ECS_CLUSTER=\"no\"\n",
            image: "ECS_CONTAINER_START_TIMEOUT=1s\n",
        };
        let told = hazards(&settings(), files);
        let text: Vec<String> = told.iter().map(|(_, text)| text.clone()).collect();
        let text = text.join("\n");
        assert_eq!(told.len(), 5, "{text}");
        for part in [
            "/etc/ecs/ecs.config: ECS_LOGFILE: must not be quoted",
            "/etc/ecs/ecs.config: ECS_ENGINE_AUTH_DATA: is not what",
            "did you mean `ECS_LOGLEVEL`?",
            "`export ECS_POLL_METRICS`",
            "/var/lib/ecs/ecs.config: ECS_CONTAINER_START_TIMEOUT: `1s` is below 45s: the ECS agent would not start",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(of(files, SECRET).value, "(not shown)");
    }
}
