//! The part of the cluster query language that is served: clauses joined by `and`, each
//! `SUBJECT == VALUE`, `SUBJECT != VALUE`, `SUBJECT in [A, B]`, `SUBJECT exists` or
//! `SUBJECT not_exists`. SUBJECT is `attribute:NAME`, `ec2InstanceId` or `agentConnected`.

use super::{ContainerInstance, invalid};
use crate::api_error::ApiError;

/// A filter of container instances, or a `memberOf` constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression(Vec<Clause>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    subject: Subject,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Attribute(String),
    Ec2InstanceId,
    AgentConnected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equals(String),
    Differs(String),
    In(Vec<String>),
    Exists,
    NotExists,
}

impl Expression {
    /// # Errors
    /// `InvalidParameterException` names the clause that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let clauses = text.split(" and ").map(|clause| {
            Clause::parse(clause.trim()).ok_or_else(|| {
                invalid(format!(
                    "Invalid expression: fleet-sandbox does not serve '{}'",
                    clause.trim()
                ))
            })
        });
        clauses.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn matches(&self, instance: &ContainerInstance) -> bool {
        self.0.iter().all(|clause| clause.matches(instance))
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let (subject, test) = if let Some((subject, value)) = text.split_once("==") {
            (subject, Test::Equals(value.trim().to_owned()))
        } else if let Some((subject, value)) = text.split_once("!=") {
            (subject, Test::Differs(value.trim().to_owned()))
        } else if let Some((subject, values)) = text.split_once(" in ") {
            let values = values.trim().strip_prefix('[')?.strip_suffix(']')?;
            let values = values.split(',').map(|v| v.trim().to_owned());
            (subject, Test::In(values.collect()))
        } else if let Some(subject) = text.strip_suffix(" not_exists") {
            (subject, Test::NotExists)
        } else {
            (text.strip_suffix(" exists")?, Test::Exists)
        };
        let subject = match subject.trim() {
            "ec2InstanceId" => Subject::Ec2InstanceId,
            "agentConnected" => Subject::AgentConnected,
            other => Subject::Attribute(other.strip_prefix("attribute:")?.to_owned()),
        };
        Some(Self { subject, test })
    }

    fn matches(&self, instance: &ContainerInstance) -> bool {
        let value = match &self.subject {
            Subject::Ec2InstanceId => Some(instance.ec2_instance_id.clone()),
            Subject::AgentConnected => Some(instance.connected.to_string()),
            Subject::Attribute(name) => {
                let value = instance.attributes.get(name);
                value.map(|value| value.clone().unwrap_or_default())
            }
        };
        match &self.test {
            Test::Equals(wanted) => value.as_ref() == Some(wanted),
            Test::Differs(wanted) => value.as_ref() != Some(wanted),
            Test::In(wanted) => value.is_some_and(|value| wanted.contains(&value)),
            Test::Exists => value.is_some(),
            Test::NotExists => value.is_none(),
        }
    }
}
