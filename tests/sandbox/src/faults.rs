//! Faults on demand: rules that make matching API calls fail, wait or break off.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A rule. The first that matches and is not used up applies, before the call does anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultRule {
    /// As in the signature, `ecs`; any if absent.
    pub service: Option<String>,
    /// Operation; any if absent.
    pub operation: Option<String>,
    /// Access key; any if absent.
    pub caller: Option<String>,
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
    /// Breaks the connection off in the middle of the reply.
    pub drop: bool,
}

/// The rules in force, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Vec<FaultRule>);

impl Faults {
    pub(crate) fn replace(&mut self, rules: Vec<FaultRule>) {
        self.0 = rules;
    }

    pub(crate) fn list(&self) -> &[FaultRule] {
        &self.0
    }

    /// The rule for this attempt, which is used up by one.
    pub(crate) fn apply(
        &mut self,
        service: &str,
        operation: &str,
        caller: &str,
    ) -> Option<FaultRule> {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let rule = self.0.iter_mut().find(|rule| {
            rule.times != Some(0)
                && fits(&rule.service, service)
                && fits(&rule.operation, operation)
                && fits(&rule.caller, caller)
        })?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_as_often_as_it_says() {
        let mut faults = Faults::default();
        faults.replace(vec![FaultRule {
            service: Some("ecs".into()),
            times: Some(2),
            ..FaultRule::default()
        }]);
        assert!(faults.apply("ec2", "DescribeVpcs", "AKIA").is_none());
        assert!(faults.apply("ecs", "PutAttributes", "AKIA").is_some());
        assert!(faults.apply("ecs", "ListTasks", "AKIA").is_some());
        assert!(faults.apply("ecs", "ListTasks", "AKIA").is_none());
    }
}
