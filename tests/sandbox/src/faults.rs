//! Faults on demand: rules that make matching API calls fail, wait, break off or hang.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A rule. The first that fits an attempt, has let pass what it is to let pass and is not used up
/// applies, before the call does anything unless it says `served`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultRule {
    /// As in the signature, `ecs`; any if absent.
    pub service: Option<String>,
    /// Operation; any if absent.
    pub operation: Option<String>,
    /// Access key; any if absent.
    pub caller: Option<String>,
    /// Fits only calls that may change something, by their names.
    pub writes: bool,
    /// Fits only the first so many attempts of a call, as its SDK counts them; all if absent.
    pub attempts: Option<u32>,
    /// How many attempts that fit it lets pass first.
    pub skip: u32,
    /// Answers this error code instead of serving the call.
    pub code: Option<String>,
    /// HTTP status of that answer; default 400.
    pub status: Option<u16>,
    /// Text of that answer.
    pub message: Option<String>,
    /// Answers this body, of a JSON service, as if the call had been served.
    pub answer: Option<Value>,
    /// How many attempts it applies to; all if absent.
    pub times: Option<u32>,
    /// Waits first, milliseconds.
    pub latency_ms: u64,
    /// Closes the connection without a reply.
    pub drop: bool,
    /// Serves the call, and breaks the connection off in the middle of its reply.
    pub truncate: bool,
    /// Serves the call all the same: only its own answer is lost.
    pub served: bool,
    /// Keeps the caller waiting until the rules are replaced; `held` says who waits.
    pub hold: bool,
}

/// A caller that is kept waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// As in the signature.
    pub service: String,
    /// Operation.
    pub operation: String,
    /// Access key.
    pub caller: String,
}

/// An attempt, as rules see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) service: &'a str,
    pub(crate) operation: &'a str,
    pub(crate) caller: &'a str,
    /// The first of a call is 1.
    pub(crate) number: u32,
}

/// The rules in force, in order, and whom they keep waiting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    rules: Vec<FaultRule>,
    /// Counts replacements of the rules.
    generation: u64,
    held: BTreeMap<u64, Held>,
    next_held: u64,
}

impl Faults {
    pub(crate) fn replace(&mut self, rules: Vec<FaultRule>) {
        self.rules = rules;
        self.generation += 1;
    }

    pub(crate) fn list(&self) -> &[FaultRule] {
        &self.rules
    }

    /// Rises when the rules are replaced.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Who is kept waiting.
    pub(crate) fn held(&self) -> Vec<&Held> {
        self.held.values().collect()
    }

    /// Notes that a caller waits; the ticket is for [`Faults::release`].
    pub(crate) fn hold(&mut self, held: Held) -> u64 {
        self.next_held += 1;
        self.held.insert(self.next_held, held);
        self.next_held
    }

    pub(crate) fn release(&mut self, ticket: u64) {
        self.held.remove(&ticket);
    }

    /// The rule for this attempt, which is used up by one. Those that let it pass have one less to
    /// let pass.
    pub(crate) fn apply(&mut self, attempt: Attempt<'_>) -> Option<FaultRule> {
        let mut applies = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.fits(attempt)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if applies.is_none() && rule.times != Some(0) {
                if let Some(times) = &mut rule.times {
                    *times -= 1;
                }
                applies = Some(rule.clone());
            }
        }
        applies
    }
}

impl FaultRule {
    fn fits(&self, attempt: Attempt<'_>) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        fits(&self.service, attempt.service)
            && fits(&self.operation, attempt.operation)
            && fits(&self.caller, attempt.caller)
            && !(self.writes && is_read(attempt.operation))
            && self.attempts.is_none_or(|most| attempt.number <= most)
    }
}

/// By AWS's custom of naming operations.
fn is_read(operation: &str) -> bool {
    ["Describe", "Get", "Head", "List"]
        .iter()
        .any(|read| operation.starts_with(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt<'a>(service: &'a str, operation: &'a str, number: u32) -> Attempt<'a> {
        Attempt {
            service,
            operation,
            caller: "AKIA",
            number,
        }
    }

    #[test]
    fn a_rule_applies_as_often_as_it_says() {
        let mut faults = Faults::default();
        faults.replace(vec![FaultRule {
            service: Some("ecs".into()),
            times: Some(2),
            ..FaultRule::default()
        }]);
        let mut applies =
            |service, operation| faults.apply(attempt(service, operation, 1)).is_some();
        assert!(!applies("ec2", "DescribeVpcs"));
        assert!(applies("ecs", "PutAttributes"));
        assert!(applies("ecs", "ListTasks"));
        assert!(!applies("ecs", "ListTasks"));
    }

    #[test]
    fn the_nth_write_is_met_whatever_other_rules_do() {
        let mut faults = Faults::default();
        faults.replace(vec![
            FaultRule {
                operation: Some("CreateRole".into()),
                code: Some("Throttling".into()),
                ..FaultRule::default()
            },
            FaultRule {
                writes: true,
                skip: 2,
                times: Some(1),
                hold: true,
                ..FaultRule::default()
            },
        ]);
        let met: Vec<_> = [
            "GetRole",
            "CreateRole",
            "PutRolePolicy",
            "ListRoles",
            "TagRole",
            "TagRole",
        ]
        .map(|operation| faults.apply(attempt("iam", operation, 1)))
        .iter()
        .map(|rule| rule.as_ref().map(|rule| rule.hold))
        .collect();
        assert_eq!(met, [None, Some(false), None, None, Some(true), None]);
    }

    #[test]
    fn later_attempts_of_a_call_can_be_spared() {
        let mut faults = Faults::default();
        faults.replace(vec![FaultRule {
            attempts: Some(2),
            drop: true,
            ..FaultRule::default()
        }]);
        let met = [1, 2, 3].map(|n| faults.apply(attempt("ecs", "ListTasks", n)).is_some());
        assert_eq!(met, [true, true, false]);
    }
}
