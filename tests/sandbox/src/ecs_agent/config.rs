//! ecs.config, read as ecs-init and the ECS agent read it: no comments, no unquoting, and most bad
//! values silently their default. Source: amazon-ecs-agent 1.105.1.

use std::{collections::BTreeMap, time::Duration};

use thiserror::Error;

/// What the stand-in obeys of the agent's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `ECS_CLUSTER`.
    pub(super) cluster: String,
    /// `ECS_INSTANCE_ATTRIBUTES`.
    pub(super) attributes: BTreeMap<String, String>,
    /// `ECS_CONTAINER_INSTANCE_TAGS`.
    pub(super) tags: BTreeMap<String, String>,
    /// `ECS_RESERVED_MEMORY`, MiB.
    pub(super) reserved_memory: u16,
    /// `ECS_RESERVED_PORTS`.
    pub(super) reserved_ports: Vec<u16>,
    /// `ECS_RESERVED_PORTS_UDP`.
    pub(super) reserved_ports_udp: Vec<u16>,
    /// `ECS_CONTAINER_STOP_TIMEOUT`.
    pub(super) stop_timeout: Duration,
    /// `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`.
    pub(super) cleanup_wait: Duration,
}

/// The agent refuses to start.
#[derive(Debug, Error)]
#[error("invalid value for {variable}: {value:?}: {source}")]
pub(super) struct ConfigError {
    variable: &'static str,
    value: String,
    source: serde_json::Error,
}

/// Variables of both files; the operator's (/etc/ecs) override the platform's (/var/lib/ecs).
pub(super) fn variables(platform: &str, operator: &str) -> BTreeMap<String, String> {
    platform
        .lines()
        .chain(operator.lines())
        .filter_map(|line| line.trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Settings {
    /// # Errors
    /// Attributes or tags that are not a JSON object of strings.
    pub(super) fn of(variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let get = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
        let cluster = match get("ECS_CLUSTER") {
            "" => "default",
            cluster => cluster,
        };
        let second = Duration::from_secs(1);
        Ok(Self {
            cluster: cluster.to_owned(),
            attributes: map(variables, "ECS_INSTANCE_ATTRIBUTES")?,
            tags: map(variables, "ECS_CONTAINER_INSTANCE_TAGS")?,
            reserved_memory: get("ECS_RESERVED_MEMORY").parse().unwrap_or(0),
            reserved_ports: ports(get("ECS_RESERVED_PORTS"))
                .unwrap_or_else(|| vec![22, 2375, 2376, 51678, 51679]),
            reserved_ports_udp: ports(get("ECS_RESERVED_PORTS_UDP")).unwrap_or_default(),
            stop_timeout: go_duration(get("ECS_CONTAINER_STOP_TIMEOUT"))
                .unwrap_or(Duration::from_secs(30))
                .max(second),
            cleanup_wait: go_duration(get("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION"))
                .filter(|wait| *wait >= second)
                .unwrap_or(Duration::from_secs(3 * 3_600)),
        })
    }
}

fn map(
    variables: &BTreeMap<String, String>,
    variable: &'static str,
) -> Result<BTreeMap<String, String>, ConfigError> {
    match variables.get(variable).map(String::as_str) {
        None | Some("") => Ok(BTreeMap::new()),
        Some(value) => serde_json::from_str(value).map_err(|source| ConfigError {
            variable,
            value: value.to_owned(),
            source,
        }),
    }
}

fn ports(value: &str) -> Option<Vec<u16>> {
    serde_json::from_str(value).ok()
}

/// Go's `time.ParseDuration`, without a sign: `1h30m`, `1.5s`; a bare `30` is no duration.
fn go_duration(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(operator: &str) -> Settings {
        Settings::of(&variables("", operator)).unwrap()
    }

    #[test]
    fn the_operator_overrides_the_platform() {
        let read = variables(
            "ECS_CLUSTER=a\nECS_RESERVED_MEMORY=64\n",
            "ECS_CLUSTER=b=c\n",
        );
        assert_eq!(read["ECS_CLUSTER"], "b=c");
        assert_eq!(read["ECS_RESERVED_MEMORY"], "64");
    }

    #[test]
    fn nothing_is_unquoted_and_nothing_is_a_comment() {
        let read = variables("", "#ECS_CLUSTER=x\nECS_CLUSTER=\"y\"\nnonsense\n");
        assert_eq!(read["#ECS_CLUSTER"], "x");
        assert_eq!(settings("ECS_CLUSTER=\"y\"").cluster, "\"y\"");
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn an_empty_file_has_the_agent_s_defaults() {
        let defaults = settings("");
        assert_eq!(defaults.cluster, "default");
        assert_eq!(defaults.stop_timeout, Duration::from_secs(30));
        assert_eq!(defaults.cleanup_wait, Duration::from_secs(10_800));
        assert_eq!(defaults.reserved_ports, [22, 2375, 2376, 51678, 51679]);
    }

    #[test]
    fn bad_durations_and_numbers_are_defaults() {
        let read = settings("ECS_CONTAINER_STOP_TIMEOUT=30\nECS_RESERVED_MEMORY=70000");
        assert_eq!(read.stop_timeout, Duration::from_secs(30));
        assert_eq!(read.reserved_memory, 0);
        let clamped = settings("ECS_CONTAINER_STOP_TIMEOUT=10ms");
        assert_eq!(clamped.stop_timeout, Duration::from_secs(1));
    }

    #[test]
    fn durations_are_go_s() {
        assert_eq!(go_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1_500)));
        for bad in ["", "30", "s", "5 m", "-1s", "1d"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_json_keeps_the_agent_from_starting() {
        let error = Settings::of(&variables("", "ECS_INSTANCE_ATTRIBUTES={\"a\":1}")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid value for ECS_INSTANCE_ATTRIBUTES: \"{\\\"a\\\":1}\""),
            "{error}"
        );
    }
}
