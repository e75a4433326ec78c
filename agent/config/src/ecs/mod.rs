//! What the ECS agent accepts in `ecs.config`, as it really treats each value: a bad boolean or
//! duration is silently its default, bad JSON keeps it from starting at all.
//!
//! AMIs move on, so an unknown `ECS_*` name is only refused when it is one edit away from a known
//! one.

mod kind;
mod variables;

pub use kind::{Beyond, Kind};
pub use variables::VARIABLES;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Problem, names::tag};

/// Names the agent sets itself; a file that sets them too is refused.
pub const RESERVED: &[&str] = &["ECS_CLUSTER"];

/// What the ECS agent tells ECS when the instance registers, and never again: a change of one of
/// these comes into force with the next instance.
pub const AT_REGISTRATION: &[&str] = &[
    "ECS_CLUSTER",
    "ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM",
    "ECS_CONTAINER_INSTANCE_TAGS",
    "ECS_RESERVED_MEMORY",
    "ECS_RESERVED_PORTS",
    "ECS_RESERVED_PORTS_UDP",
];

/// Told at registration too, but the agent can put them right later (PutAttributes).
pub const INSTANCE_ATTRIBUTES: &str = "ECS_INSTANCE_ATTRIBUTES";

/// Tags that the ECS agent gives its container instance, a JSON object.
pub const INSTANCE_TAGS: &str = "ECS_CONTAINER_INSTANCE_TAGS";

/// What of [`INSTANCE_TAGS`] is in the way of a node's own tag, [`tag::INSTANCE`].
pub(crate) fn tag_conflict(ecs: &BTreeMap<String, String>) -> Option<Problem> {
    let given: BTreeMap<String, Value> = serde_json::from_str(ecs.get(INSTANCE_TAGS)?).ok()?;
    let why = if given.contains_key(tag::INSTANCE) {
        format!(
            "must not hold `{}`, which the node gives itself",
            tag::INSTANCE
        )
    } else if given.len() >= kind::TAGS {
        format!(
            "leaves no room for `{}` among {} tags",
            tag::INSTANCE,
            kind::TAGS
        )
    } else {
        return None;
    };
    Some(Problem::new(format!("ecs.{INSTANCE_TAGS}"), why))
}

/// Checks one `NAME = "value"` of an `[ecs]` table; problems carry the key `ecs.NAME`.
pub fn check(name: &str, value: &str) -> Option<Problem> {
    let problem = |message: String| Some(Problem::new(format!("ecs.{name}"), message));
    if RESERVED.contains(&name) {
        return problem("is set by fleet itself, remove it".to_owned());
    }
    if let Some((kind, _)) = variable(name) {
        return kind::reason(kind, value).and_then(problem);
    }
    if let Some(why) = misspelt(&name.to_ascii_uppercase()) {
        return problem(why);
    }
    if !name.starts_with("ECS_") || !name.bytes().all(is_name_byte) {
        return problem("is not a variable of the ECS agent".to_owned());
    }
    kind::reason(Kind::Text, value).and_then(problem)
}

/// What is wrong with an unknown variable that is one edit away from a known one.
pub fn misspelt(name: &str) -> Option<String> {
    let mut known = VARIABLES.iter().map(|(known, ..)| *known);
    let near = known.find(|known| strsim::osa_distance(known, name) <= 1)?;
    Some(format!("unknown variable, did you mean `{near}`?"))
}

/// Type and default of a variable that this build knows; an unknown one is passed on with a
/// warning.
pub fn variable(name: &str) -> Option<(Kind, &'static str)> {
    let index = VARIABLES
        .binary_search_by_key(&name, |(known, ..)| known)
        .ok()?;
    let (_, kind, default) = VARIABLES[index];
    Some((kind, default))
}

/// Whether this build knows the variable.
pub fn is_known(name: &str) -> bool {
    variable(name).is_some()
}

/// Why the ECS agent would not take a value that stands in a file on the node, whoever wrote it.
pub fn refusal(name: &str, value: &str) -> Option<String> {
    kind::reason(variable(name)?.0, value)
}

/// What a duration of the ECS agent means: Go's syntax, as [`check`] accepts it.
pub fn duration(value: &str) -> Option<std::time::Duration> {
    let seconds = kind::go_duration_milliseconds(value)? / 1e3;
    std::time::Duration::try_from_secs_f64(seconds).ok()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(VARIABLES.is_sorted_by(|(a, ..), (b, ..)| a < b));
    }

    #[test]
    fn every_default_is_a_value_that_the_agent_takes() {
        for (name, kind, default) in VARIABLES {
            if !default.is_empty() {
                assert_eq!(kind::reason(*kind, default), None, "{name}={default}");
            }
        }
    }

    #[test]
    fn takes_what_the_ecs_agent_takes() {
        for (name, value) in [
            ("ECS_LOGLEVEL", "debug"),
            ("ECS_ENABLE_TASK_ENI", "T"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "1m30s"),
            ("ECS_CGROUP_CPU_PERIOD", "20ms"),
            ("ECS_RESERVED_MEMORY", "256"),
            ("ECS_RESERVED_PORTS", "[22,51678]"),
            ("ECS_INSTANCE_ATTRIBUTES", r#"{"disk":"ssd"}"#),
            ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"team":"shop, web"}"#),
            (
                "ECS_AVAILABLE_LOGGING_DRIVERS",
                r#"["journald","awsfirelens"]"#,
            ),
            (
                "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES",
                r#"["10.0.0.0/8","fd00::/8"]"#,
            ),
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
            (
                "ECS_CONTAINER_STOP_TIMEOUT",
                "10ms",
                "would take 1s instead",
            ),
            (
                "ECS_CONTAINER_START_TIMEOUT",
                "10s",
                "below 45s: the ECS agent would not start",
            ),
            (
                "ECS_IMAGE_CLEANUP_INTERVAL",
                "1m",
                "below 10m: the ECS agent would silently",
            ),
            (
                "ECS_POLLING_METRICS_WAIT_DURATION",
                "1m",
                "above 20s: the ECS agent would take 20s",
            ),
            ("ECS_RESERVED_MEMORY", "70000", "0 to 65535"),
            ("ECS_RESERVED_PORTS", "22", "would not start"),
            ("ECS_INSTANCE_ATTRIBUTES", r#"{"a":1}"#, "would not start"),
            (
                "ECS_INSTANCE_ATTRIBUTES",
                r#"{"a b":"c"}"#,
                "`a b` is no name",
            ),
            ("ECS_INSTANCE_ATTRIBUTES", r#"{"a":"b,c"}"#, "value of `a`"),
            (
                "ECS_INSTANCE_ATTRIBUTES",
                r#"{"fleet.x":"y"}"#,
                "fleet's own",
            ),
            (
                "ECS_INSTANCE_ATTRIBUTES",
                r#"{"a":"1","b":"2","c":"3","d":"4"}"#,
                "3 at most",
            ),
            ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"aws:x":"y"}"#, "`aws:`"),
            (
                "ECS_AVAILABLE_LOGGING_DRIVERS",
                r#"["jornald"]"#,
                "did you mean `journald`",
            ),
            (
                "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES",
                r#"["10.0.0.0"]"#,
                "array of CIDRs",
            ),
            ("ECS_LOGLEVEL", "\"info\"", "quoted"),
            ("ECS_LOGFILE", "a\nb", "one line"),
            ("ECS_LOGFILE", "a ", "space"),
            ("ECS_LOGLEVL", "info", "did you mean `ECS_LOGLEVEL`"),
            ("ECS_CLUSTER", "x", "set by fleet"),
            ("ecs_loglevel", "info", "did you mean `ECS_LOGLEVEL`"),
            ("HTTP_PROXI", "http://h", "did you mean `HTTP_PROXY`"),
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
