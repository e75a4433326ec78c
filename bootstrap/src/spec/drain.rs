//! `[drain]` and `[groups.NAME.drain]`: what a group inherits, and where a problem of both together
//! stands.

use fleet_agent_config::{DrainConfig, Problem};

/// A key of earlier files.
const OLD_KEY: &str = ".drain_deadline_seconds";

/// A group's own settings over those of all groups, field by field; a family's rule for standalone
/// tasks is one field.
pub(super) fn inherited(shared: &DrainConfig, own: &DrainConfig) -> DrainConfig {
    let mut standalone = shared.standalone.clone();
    standalone.extend(own.standalone.clone());
    DrainConfig {
        deadline_seconds: own.deadline_seconds.or(shared.deadline_seconds),
        rebalance: own.rebalance.or(shared.rebalance),
        impaired: own.impaired.or(shared.impaired),
        maintenance: own.maintenance.or(shared.maintenance),
        maintenance_lead_seconds: own
            .maintenance_lead_seconds
            .or(shared.maintenance_lead_seconds),
        standalone,
    }
}

/// A problem with `field` of what the group of `table` inherits, at the key where the value stands.
/// A value of all groups that only one of them cannot live with is said to be that group's problem.
pub(super) fn told(
    field: &str,
    message: String,
    table: &str,
    own: &DrainConfig,
    shared: &DrainConfig,
) -> Problem {
    if has(own, field) || !has(shared, field) {
        return Problem::new(format!("{table}.drain.{field}"), message);
    }
    // Only tasks' stop times depend on another field, the deadline, which the group may have of
    // its own. The hook's time-out has no part in them.
    let mut of_all = Vec::new();
    shared.clone().validate(u32::MAX, &mut of_all);
    let is_of_all = of_all.iter().any(|problem| problem.message == message);
    let key = format!("drain.{field}");
    if is_of_all || !field.starts_with("standalone.") {
        Problem::new(key, message)
    } else {
        Problem::new(key, format!("{message}, in [{table}]"))
    }
}

/// Whether the file sets this field, or a part of it.
fn has(config: &DrainConfig, field: &str) -> bool {
    match field {
        "deadline_seconds" => config.deadline_seconds.is_some(),
        "maintenance_lead_seconds" => config.maintenance_lead_seconds.is_some(),
        other => other.strip_prefix("standalone.").is_some_and(|rule| {
            let is_of = |family: &String| {
                rule.strip_prefix(family.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            config.standalone.keys().any(is_of)
        }),
    }
}

/// Says what has become of a key that files had until `[groups.NAME.drain]` came: it is too
/// different to be taken for a misspelling of the new one.
pub(super) fn explain_old_key(problem: Problem) -> Problem {
    let is_old = problem.key.starts_with("groups.")
        && problem.key.ends_with(OLD_KEY)
        && problem.message.starts_with("unknown key");
    if !is_old {
        return problem;
    }
    Problem {
        message: "unknown key, did you mean `drain.deadline_seconds`?".to_owned(),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use fleet_agent_config::{Reaction, StandaloneConfig, StandalonePolicy};

    use super::*;

    fn rule(policy: StandalonePolicy, after_seconds: Option<u32>) -> StandaloneConfig {
        StandaloneConfig {
            policy: Some(policy),
            after_seconds,
        }
    }

    #[test]
    fn a_group_overrides_each_field_and_each_family_by_itself() {
        let stop = rule(StandalonePolicy::Stop, Some(60));
        let wait = rule(StandalonePolicy::Wait, None);
        let shared = DrainConfig {
            deadline_seconds: Some(900),
            rebalance: Some(Reaction::Drain),
            standalone: [("batch".into(), stop.clone()), ("*".into(), stop.clone())].into(),
            ..DrainConfig::default()
        };
        let own = DrainConfig {
            deadline_seconds: Some(1_800),
            impaired: Some(Reaction::Drain),
            maintenance: Some(Reaction::Ignore),
            maintenance_lead_seconds: Some(120),
            standalone: [("batch".into(), wait.clone())].into(),
            ..DrainConfig::default()
        };
        let expected = DrainConfig {
            rebalance: Some(Reaction::Drain),
            standalone: [("batch".into(), wait), ("*".into(), stop)].into(),
            ..own.clone()
        };
        assert_eq!(inherited(&shared, &own), expected);
        assert_eq!(inherited(&shared, &DrainConfig::default()), shared);
    }
}
