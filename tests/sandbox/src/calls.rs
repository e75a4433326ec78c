//! Counting calls: what an `up`, a drain, a node costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Calls since the last reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(BTreeMap<(String, String, String), Counts>);

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u64,
    attempts: u64,
    refused: u64,
}

/// Calls of one operation by one caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// As in the signature: `ecs`, `autoscaling`, `ec2`, …
    pub service: String,
    /// Operation.
    pub operation: String,
    /// Access key: every machine has its own.
    pub caller: String,
    /// What a program asked for.
    pub calls: u64,
    /// What was sent for it, retries included.
    pub attempts: u64,
    /// Attempts beyond the service's request limits.
    #[serde(default)]
    pub refused: u64,
}

impl Calls {
    /// Counts an attempt; the first of a call also counts the call.
    pub(crate) fn count(&mut self, service: &str, operation: &str, caller: &str, first: bool) {
        let counts = self.of(service, operation, caller);
        counts.calls += u64::from(first);
        counts.attempts += 1;
    }

    /// Counts an attempt, counted already, that was beyond the service's limits.
    pub(crate) fn count_refusal(&mut self, service: &str, operation: &str, caller: &str) {
        self.of(service, operation, caller).refused += 1;
    }

    fn of(&mut self, service: &str, operation: &str, caller: &str) -> &mut Counts {
        let key = (service.to_owned(), operation.to_owned(), caller.to_owned());
        self.0.entry(key).or_default()
    }

    pub(crate) fn list(&self) -> Vec<CallCount> {
        self.0
            .iter()
            .map(|((service, operation, caller), counts)| CallCount {
                service: service.clone(),
                operation: operation.clone(),
                caller: caller.clone(),
                calls: counts.calls,
                attempts: counts.attempts,
                refused: counts.refused,
            })
            .collect()
    }
}

/// Which attempt of its call the request is, by the SDKs' `amz-sdk-request: attempt=1; max=3`; the
/// first, of a caller that is no SDK.
pub(crate) fn attempt(header: Option<&str>) -> u32 {
    let attempt = header.and_then(|header| {
        let parts = header.split(';');
        parts
            .filter_map(|p| p.trim().strip_prefix("attempt="))
            .next()
    });
    attempt.and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_attempts_of_one_call() {
        let mut calls = Calls::default();
        for header in [
            "attempt=1; max=3",
            "attempt=2; max=3",
            "ttl=1; attempt=3; max=3",
        ] {
            calls.count("ecs", "ListClusters", "AKIA", attempt(Some(header)) == 1);
        }
        calls.count_refusal("ecs", "ListClusters", "AKIA");
        let list = calls.list();
        assert_eq!((list[0].calls, list[0].attempts), (1, 3));
        assert_eq!(list[0].refused, 1, "of the attempts");
        assert_eq!(attempt(Some("ttl=1; attempt=3; max=3")), 3);
        assert_eq!(attempt(None), 1, "a caller that is no SDK");
    }
}
