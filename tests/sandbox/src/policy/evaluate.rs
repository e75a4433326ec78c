//! Requests, and what policies decide about them.

use std::collections::BTreeMap;

use super::{
    document::{Effect, Policy, Statement},
    pattern::{Manner, arn_matches, matches},
};

/// One action on one resource. A call that is about several resources, or needs several actions, is
/// as many requests, and every one of them has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `ecs:PutAttributes`.
    pub action: String,
    /// ARN; `*` for an action that knows no resource.
    pub resource: String,
    /// What conditions can ask for.
    pub(super) context: Context,
}

/// Values by condition key. Keys have no case, tags' keys in them included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Context(BTreeMap<String, Vec<String>>);

/// What policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it, and none denies it.
    Allowed,
    /// No statement allows it.
    Unmentioned,
    /// A statement denies it.
    Forbidden,
}

impl Request {
    /// Without a context.
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            resource: resource.into(),
            context: Context::default(),
        }
    }

    /// Adds a value of a condition key.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.add(key, value.into());
        self
    }

    /// Condition keys in lower case, with their values.
    pub fn context(&self) -> impl Iterator<Item = (&str, &[String])> {
        let keys = self.context.0.iter();
        keys.map(|(key, values)| (key.as_str(), values.as_slice()))
    }
}

impl Context {
    pub(super) fn all(&self, key: &str) -> &[String] {
        self.0.get(&key.to_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// The value of a key that has just one.
    pub(super) fn one(&self, key: &str) -> Option<&str> {
        match self.all(key) {
            [one] => Some(one),
            _ => None,
        }
    }

    fn add(&mut self, key: &str, value: String) {
        self.0.entry(key.to_lowercase()).or_default().push(value);
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Context {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        let mut context = Self::default();
        for (key, value) in pairs {
            context.add(key, value.to_owned());
        }
        context
    }
}

/// What all policies of a caller decide together.
pub fn decide<'a>(policies: impl IntoIterator<Item = &'a Policy>, request: &Request) -> Decision {
    let statements = policies.into_iter().flat_map(|policy| &policy.statements);
    let mut decision = Decision::Unmentioned;
    for statement in statements.filter(|statement| statement.is_about(request)) {
        match statement.effect {
            Effect::Allow => decision = Decision::Allowed,
            Effect::Deny => return Decision::Forbidden,
        }
    }
    decision
}

impl Statement {
    fn is_about(&self, request: &Request) -> bool {
        let action = request.action.to_lowercase();
        let context = &request.context;
        let mut actions = self.actions.iter();
        let mut resources = self.resources.iter();
        actions.any(|pattern| matches(pattern, &action, Manner::Like, context))
            && resources.any(|pattern| arn_matches(pattern, &request.resource, context))
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(context))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CLUSTER: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/dev";

    fn policy(statements: Value) -> Policy {
        Policy::read(&json!({ "Version": "2012-10-17", "Statement": statements })).unwrap()
    }

    #[test]
    fn a_deny_wins_over_every_allow_and_silence_denies() {
        let allow = policy(json!([
            { "Effect": "Allow", "Action": "ecs:List*", "Resource": CLUSTER },
        ]));
        let deny = policy(json!([
            { "Effect": "Deny", "Action": "ECS:listtasks", "Resource": "*" },
        ]));
        for (action, resource, expected) in [
            ("ecs:ListAttributes", CLUSTER, Decision::Allowed),
            ("ecs:listattributes", CLUSTER, Decision::Allowed),
            ("ecs:ListTasks", CLUSTER, Decision::Forbidden),
            ("ecs:ListAttributes", "*", Decision::Unmentioned),
            ("ecs:Poll", CLUSTER, Decision::Unmentioned),
        ] {
            let request = Request::new(action, resource);
            assert_eq!(
                decide([&allow, &deny], &request),
                expected,
                "{action} {resource}"
            );
            assert_eq!(
                decide([&deny, &allow], &request),
                expected,
                "{action} {resource}"
            );
        }
    }

    #[test]
    fn every_condition_of_a_statement_has_to_hold() {
        let policy = policy(json!([{
            "Effect": "Allow",
            "Action": "ecs:PutAttributes",
            "Resource": "*",
            "Condition": {
                "ArnEquals": { "ecs:cluster": CLUSTER },
                "StringEquals": { "aws:ResourceTag/fleet:instance": "${ec2:SourceInstanceARN}" },
            },
        }]));
        let decide = |request: Request| decide([&policy], &request);
        let own = "arn:aws:ec2:eu-west-1:123456789012:instance/i-1";
        let call = || {
            Request::new(
                "ecs:PutAttributes",
                "arn:aws:ecs:eu-west-1:123456789012:container-instance/dev/1",
            )
            .with("ec2:SourceInstanceARN", own)
        };
        assert_eq!(decide(call()), Decision::Unmentioned);
        assert_eq!(
            decide(call().with("ecs:cluster", CLUSTER)),
            Decision::Unmentioned
        );
        let here = || call().with("ecs:cluster", CLUSTER);
        assert_eq!(
            decide(here().with("aws:ResourceTag/fleet:instance", own)),
            Decision::Allowed
        );
        assert_eq!(
            decide(here().with("aws:resourcetag/fleet:instance", "i-2")),
            Decision::Unmentioned
        );
    }
}
