//! What the ECS agent accepts in `ecs.config`, as it really treats each value: a bad boolean or
//! duration is silently its default, bad JSON keeps it from starting at all.
//!
//! Source: amazon-ecs-agent 1.105.1, README and `agent/config`. AMIs move on, so an unknown `ECS_*`
//! name is only refused when it is one edit away from a known one.

use crate::Problem;

/// The type of a variable, with the ECS agent's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text on one line.
    Text,
    /// Go's `strconv.ParseBool`.
    Bool,
    /// Go's duration syntax, at least this many milliseconds.
    Duration(u64),
    /// An integer in a range.
    Integer(u32, u32),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `steady,burst`.
    Rate,
    /// `low-high`.
    PortRange,
    /// A JSON array of ports.
    JsonPorts,
    /// A JSON array of strings.
    JsonStrings,
    /// A JSON object of strings.
    JsonMap,
    /// Any JSON.
    Json,
}

use Kind::{
    Bool, Duration, Integer, Json, JsonMap, JsonPorts, JsonStrings, PortRange, Rate, Text, Word,
};

/// Names the agent sets itself; a file that sets them too is refused.
pub const RESERVED: &[&str] = &["ECS_CLUSTER"];

const LEVELS: &[&str] = &["crit", "error", "warn", "info", "debug"];

/// Every variable of the ECS agent on Linux, sorted by name.
pub const VARIABLES: &[(&str, Kind)] = &[
    ("AWS_DEFAULT_REGION", Text),
    ("CREDENTIALS_FETCHER_HOST", Text),
    ("CREDENTIALS_FETCHER_HOST_DIR", Text),
    ("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", Text),
    ("DOCKER_HOST", Text),
    ("ECS_AGENT_APPARMOR_PROFILE", Text),
    ("ECS_AGENT_CONFIG_FILE_PATH", Text),
    ("ECS_AGENT_HEALTHCHECK_HOST", Text),
    ("ECS_AGENT_LABELS", JsonMap),
    ("ECS_AGENT_PID_NAMESPACE_HOST", Bool),
    ("ECS_AGENT_RUN_PRIVILEGED", Bool),
    ("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", Bool),
    ("ECS_ALTERNATE_CREDENTIAL_PROFILE", Text),
    ("ECS_APPARMOR_CAPABLE", Bool),
    ("ECS_AUDIT_LOGFILE", Text),
    ("ECS_AUDIT_LOGFILE_DISABLED", Bool),
    ("ECS_AVAILABLE_LOGGING_DRIVERS", JsonStrings),
    ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", JsonStrings),
    ("ECS_AWSVPC_BLOCK_IMDS", Bool),
    ("ECS_BACKEND_HOST", Text),
    ("ECS_CGROUP_CPU_PERIOD", Duration(8)),
    ("ECS_CGROUP_PATH", Text),
    ("ECS_CHECKPOINT", Bool),
    ("ECS_CLUSTER", Text),
    ("ECS_CNI_LOGLEVEL", Text),
    ("ECS_CNI_LOG_FILE", Text),
    ("ECS_CNI_PLUGINS_PATH", Text),
    ("ECS_CONTAINER_CREATE_TIMEOUT", Duration(60_000)),
    (
        "ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM",
        Word(&["none", "ec2_instance"]),
    ),
    ("ECS_CONTAINER_INSTANCE_TAGS", JsonMap),
    ("ECS_CONTAINER_START_TIMEOUT", Duration(45_000)),
    ("ECS_CONTAINER_STOP_TIMEOUT", Duration(1_000)),
    ("ECS_DATADIR", Text),
    ("ECS_DETAILED_OS_FAMILY", Text),
    ("ECS_DISABLE_DOCKER_HEALTH_CHECK", Bool),
    ("ECS_DISABLE_IMAGE_CLEANUP", Bool),
    ("ECS_DISABLE_METRICS", Bool),
    ("ECS_DISABLE_PRIVILEGED", Bool),
    ("ECS_DISABLE_TASK_METADATA_AZ", Bool),
    ("ECS_DOMAIN_JOINED_LINUX_INSTANCE", Bool),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", PortRange),
    ("ECS_EBSTA_SUPPORTED", Bool),
    ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", Bool),
    ("ECS_ENABLE_CONTAINER_METADATA", Bool),
    ("ECS_ENABLE_FIRELENS_ASYNC", Bool),
    ("ECS_ENABLE_GPU_SUPPORT", Bool),
    ("ECS_ENABLE_HIGH_DENSITY_ENI", Bool),
    ("ECS_ENABLE_INF_SUPPORT", Bool),
    ("ECS_ENABLE_PROMETHEUS_METRICS", Bool),
    ("ECS_ENABLE_RUNTIME_STATS", Bool),
    ("ECS_ENABLE_SPOT_INSTANCE_DRAINING", Bool),
    ("ECS_ENABLE_TASK_CPU_MEM_LIMIT", Bool),
    ("ECS_ENABLE_TASK_ENI", Bool),
    ("ECS_ENABLE_TASK_IAM_ROLE", Bool),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Bool),
    ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", Bool),
    ("ECS_ENGINE_AUTH_DATA", Json),
    ("ECS_ENGINE_AUTH_TYPE", Word(&["docker", "dockercfg"])),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", Duration(1_000)),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", Duration(0)),
    ("ECS_EXCLUDE_IPV6_PORTBINDING", Bool),
    ("ECS_EXCLUDE_UNTRACKED_IMAGE", Text),
    ("ECS_EXTERNAL", Bool),
    ("ECS_GMSA_SUPPORTED", Bool),
    ("ECS_HOST_DATA_DIR", Text),
    ("ECS_IMAGE_CLEANUP_INTERVAL", Duration(600_000)),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", Duration(0)),
    (
        "ECS_IMAGE_PULL_BEHAVIOR",
        Word(&["default", "always", "once", "prefer-cached"]),
    ),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", Duration(60_000)),
    ("ECS_IMAGE_PULL_TIMEOUT", Duration(0)),
    ("ECS_INIT_DOCKER_LOG_FILE_NUM", Integer(1, 1_000)),
    ("ECS_INIT_DOCKER_LOG_FILE_SIZE", Text),
    ("ECS_INSTANCE_ATTRIBUTES", JsonMap),
    ("ECS_INSTANCE_IP_COMPATIBILITY", Word(&["ipv4", "ipv6"])),
    ("ECS_LOGFILE", Text),
    ("ECS_LOGLEVEL", Word(LEVELS)),
    (
        "ECS_LOGLEVEL_ON_INSTANCE",
        Word(&["none", "crit", "error", "warn", "info", "debug"]),
    ),
    ("ECS_LOG_DRIVER", Text),
    ("ECS_LOG_MAX_FILE_SIZE_MB", Integer(1, 100_000)),
    ("ECS_LOG_MAX_ROLL_COUNT", Integer(1, 100_000)),
    ("ECS_LOG_OPTS", JsonMap),
    ("ECS_LOG_OUTPUT_FORMAT", Word(&["logfmt", "json"])),
    ("ECS_LOG_ROLLOVER_TYPE", Word(&["size", "hourly"])),
    ("ECS_MANIFEST_PULL_TIMEOUT", Duration(30_000)),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", Integer(1, 10_000)),
    ("ECS_NVIDIA_RUNTIME", Text),
    ("ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", Text),
    ("ECS_PAUSE_LABELS", JsonMap),
    ("ECS_POLLING_METRICS_WAIT_DURATION", Duration(5_000)),
    ("ECS_POLL_METRICS", Bool),
    ("ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2", Bool),
    ("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", Bool),
    ("ECS_RESERVED_MEMORY", Integer(0, 65_535)),
    ("ECS_RESERVED_PORTS", JsonPorts),
    ("ECS_RESERVED_PORTS_UDP", JsonPorts),
    ("ECS_SELINUX_CAPABLE", Bool),
    ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", Bool),
    ("ECS_SKIP_LOCALHOST_TRAFFIC_FILTER", Bool),
    ("ECS_TASK_METADATA_RPS_LIMIT", Rate),
    ("ECS_TASK_PIDS_LIMIT", Integer(1, 4_194_304)),
    ("ECS_UPDATES_ENABLED", Bool),
    ("ECS_UPDATE_DOWNLOAD_DIR", Text),
    ("ECS_VOLUME_PLUGIN_CAPABILITIES", JsonStrings),
    ("ECS_WARM_POOLS_CHECK", Bool),
    ("HTTP_PROXY", Text),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", Integer(1, 10_000)),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", Duration(0)),
    ("NO_PROXY", Text),
];

/// Checks one `NAME = "value"` of an `[ecs]` table; problems carry the key `ecs.NAME`.
pub fn check(name: &str, value: &str) -> Option<Problem> {
    let problem = |message: String| Some(Problem::new(format!("ecs.{name}"), message));
    if RESERVED.contains(&name) {
        return problem("is set by fleet itself, remove it".to_owned());
    }
    if let Ok(index) = VARIABLES.binary_search_by_key(&name, |(known, _)| known) {
        return reason(VARIABLES[index].1, value).and_then(problem);
    }
    if !name.starts_with("ECS_") || !name.bytes().all(is_name_byte) {
        return problem("is not a variable of the ECS agent".to_owned());
    }
    if let Some((near, _)) = VARIABLES
        .iter()
        .find(|(known, _)| strsim::osa_distance(known, name) == 1)
    {
        return problem(format!("unknown variable, did you mean `{near}`?"));
    }
    reason(Text, value).and_then(problem)
}

/// Whether this build knows the variable; an unknown one is passed on with a warning.
pub fn is_known(name: &str) -> bool {
    VARIABLES
        .binary_search_by_key(&name, |(known, _)| known)
        .is_ok()
}

/// What a duration of the ECS agent means: Go's syntax, as [`check`] accepts it.
pub fn duration(value: &str) -> Option<std::time::Duration> {
    let seconds = go_duration_milliseconds(value)? / 1e3;
    std::time::Duration::try_from_secs_f64(seconds).ok()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Why the ECS agent would not take `value`, and what it would do instead.
fn reason(kind: Kind, value: &str) -> Option<String> {
    const SILENT: &str = "the ECS agent would silently use its default";
    const FATAL: &str = "the ECS agent would not start";
    if value.contains(['\n', '\r']) {
        return Some("must be one line".to_owned());
    }
    if value != value.trim() {
        return Some("must not begin or end with a space".to_owned());
    }
    if value.starts_with(['"', '\'']) {
        return Some(
            "must not be quoted: the ECS agent would take the quotes as part of it".to_owned(),
        );
    }
    let json = |what: &str, ok: fn(&serde_json::Value) -> bool| match serde_json::from_str(value) {
        Ok(parsed) if ok(&parsed) => None,
        Ok(_) | Err(_) => Some(format!("`{value}` is not {what}: {FATAL}")),
    };
    match kind {
        Text => None,
        Bool => (!is_go_bool(value)).then(|| format!("`{value}` is not true or false: {SILENT}")),
        Duration(at_least) => match go_duration_milliseconds(value) {
            None => Some(format!(
                "`{value}` is not a duration like `30s` or `1h30m`: {SILENT}"
            )),
            #[allow(clippy::cast_precision_loss, reason = "limits are small whole numbers")]
            Some(ms) if ms < at_least as f64 => Some(format!(
                "`{value}` is below the ECS agent's minimum of {at_least} ms"
            )),
            Some(_) => None,
        },
        Integer(low, high) => match value.parse::<u32>() {
            Ok(number) if (low..=high).contains(&number) => None,
            Ok(_) | Err(_) => Some(format!(
                "`{value}` is not a whole number from {low} to {high}: {SILENT}"
            )),
        },
        Word(words) => (!words.contains(&value))
            .then(|| format!("`{value}` is not one of {}: {SILENT}", words.join(", "))),
        Rate => pair::<u32>(value, ',')
            .is_none()
            .then(|| format!("`{value}` is not `steady,burst`: {SILENT}")),
        PortRange => pair::<u16>(value, '-')
            .is_none_or(|(low, high)| low >= high)
            .then(|| format!("`{value}` is not a range like `32768-60999`: {SILENT}")),
        JsonPorts => json("a JSON array of ports", |parsed| {
            items(parsed, |item| {
                item.as_u64().is_some_and(|port| port <= 65_535)
            })
        }),
        JsonStrings => json("a JSON array of strings", |parsed| {
            items(parsed, serde_json::Value::is_string)
        }),
        JsonMap => json("a JSON object of strings", |parsed| {
            parsed
                .as_object()
                .is_some_and(|map| map.values().all(serde_json::Value::is_string))
        }),
        Json => json("JSON", |_| true),
    }
}

fn items(value: &serde_json::Value, each: fn(&serde_json::Value) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(each))
}

fn pair<T: std::str::FromStr>(value: &str, separator: char) -> Option<(T, T)> {
    let (a, b) = value.split_once(separator)?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn is_go_bool(value: &str) -> bool {
    matches!(
        value,
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    )
}

/// Go's `time.ParseDuration` for what is not negative: `1h30m`, `1.5s`, `0`.
fn go_duration_milliseconds(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-6,
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3_600e3,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(VARIABLES.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn takes_what_the_ecs_agent_takes() {
        for (name, value) in [
            ("ECS_LOGLEVEL", "debug"),
            ("ECS_ENABLE_TASK_ENI", "T"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "1m30s"),
            ("ECS_RESERVED_MEMORY", "256"),
            ("ECS_RESERVED_PORTS", "[22,51678]"),
            ("ECS_INSTANCE_ATTRIBUTES", "{\"disk\":\"ssd\"}"),
            ("ECS_TASK_METADATA_RPS_LIMIT", "40,60"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "32768-60999"),
            ("ECS_SOMETHING_NEW_IN_A_LATER_AGENT", "x"),
        ] {
            assert_eq!(check(name, value), None, "{name}={value}");
        }
    }

    #[test]
    fn says_what_the_ecs_agent_would_have_done() {
        for (name, value, part) in [
            ("ECS_ENABLE_TASK_ENI", "yes", "silently use its default"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "30", "not a duration"),
            ("ECS_CONTAINER_START_TIMEOUT", "10s", "minimum of 45000 ms"),
            ("ECS_RESERVED_MEMORY", "70000", "0 to 65535"),
            ("ECS_RESERVED_PORTS", "22", "would not start"),
            ("ECS_INSTANCE_ATTRIBUTES", "{\"a\":1}", "would not start"),
            ("ECS_LOGLEVEL", "\"info\"", "quoted"),
            ("ECS_LOGFILE", "a\nb", "one line"),
            ("ECS_LOGFILE", "a ", "space"),
            ("ECS_LOGLEVL", "info", "did you mean `ECS_LOGLEVEL`"),
            ("ECS_CLUSTER", "x", "set by fleet"),
            ("PATH", "/", "not a variable"),
            ("ECS_lower", "x", "not a variable"),
        ] {
            let problem = check(name, value).unwrap_or_else(|| panic!("{name}={value} passed"));
            assert!(
                problem.message.contains(part),
                "{name}={value}: {}",
                problem.message
            );
        }
    }
}
