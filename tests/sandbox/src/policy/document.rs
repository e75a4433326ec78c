//! Policy documents: JSON in, checked statements out.

use serde_json::{Map, Value};

use super::{
    condition::{Condition, Operator},
    pattern,
};

/// The only version whose variables are variables.
const VERSION: &str = "2012-10-17";

/// A document whose every part is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) statements: Vec<Statement>,
}

/// What is wrong with a document, or not evaluated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    /// In lower case: actions have none.
    pub(super) actions: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it, or what is right and not evaluated here, by its name and its statement.
    pub fn read(document: &Value) -> Result<Self, PolicyError> {
        let fields = document.as_object();
        let fields = fields.ok_or_else(|| PolicyError("is no JSON object".to_owned()))?;
        only(fields, &["Version", "Id", "Statement"])?;
        if fields.get("Version").and_then(Value::as_str) != Some(VERSION) {
            return Err(PolicyError(format!("Version is not \"{VERSION}\"")));
        }
        let statements = match fields.get("Statement") {
            Some(Value::Array(statements)) => statements.as_slice(),
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => return Err(PolicyError("Statement is missing".to_owned())),
        };
        let statements = statements.iter().enumerate().map(|(index, statement)| {
            let sid = statement["Sid"].as_str().unwrap_or("without a Sid");
            Statement::read(statement).map_err(|PolicyError(why)| {
                PolicyError(format!("statement {} ({sid}): {why}", index + 1))
            })
        });
        let statements = statements.collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }
}

impl Statement {
    fn read(statement: &Value) -> Result<Self, PolicyError> {
        let fields = statement.as_object();
        let fields = fields.ok_or_else(|| PolicyError("is no JSON object".to_owned()))?;
        only(
            fields,
            &["Sid", "Effect", "Action", "Resource", "Condition"],
        )?;
        let effect = match fields.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(PolicyError("Effect is neither Allow nor Deny".to_owned())),
        };
        let texts = |name: &str| {
            let texts = fields.get(name).and_then(texts);
            let texts = texts.filter(|texts| !texts.is_empty());
            texts
                .ok_or_else(|| PolicyError(format!("{name} is neither a text nor a list of texts")))
        };
        let actions = texts("Action")?;
        let resources = texts("Resource")?;
        for resource in &resources {
            if resource != "*" && resource.split(':').count() < 6 {
                return Err(PolicyError(format!("Resource `{resource}` is no ARN")));
            }
            pattern::check(resource).map_err(PolicyError)?;
        }
        Ok(Self {
            effect,
            actions: actions.iter().map(|action| action.to_lowercase()).collect(),
            resources,
            conditions: match fields.get("Condition") {
                Some(conditions) => read_conditions(conditions)?,
                None => Vec::new(),
            },
        })
    }
}

fn read_conditions(conditions: &Value) -> Result<Vec<Condition>, PolicyError> {
    let malformed = || PolicyError("Condition is not {operator: {key: value}}".to_owned());
    let mut read = Vec::new();
    for (name, keys) in conditions.as_object().ok_or_else(malformed)? {
        let operator = Operator::parse(name)
            .ok_or_else(|| PolicyError(format!("operator {name} is not evaluated here")))?;
        for (key, values) in keys.as_object().ok_or_else(malformed)? {
            let values = texts(values).ok_or_else(malformed)?;
            for value in &values {
                pattern::check(value).map_err(PolicyError)?;
            }
            read.push(Condition {
                operator,
                key: key.clone(),
                values,
            });
        }
    }
    Ok(read)
}

/// One text, or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    let values = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    let values = values.iter().map(Value::as_str);
    values.map(|text| text.map(str::to_owned)).collect()
}

fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), PolicyError> {
    let unknown = fields.keys().find(|name| !known.contains(&name.as_str()));
    match unknown {
        Some(name) => Err(PolicyError(format!("{name} is not evaluated here"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(statement: Value) -> String {
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] });
        Policy::read(&document).unwrap_err().to_string()
    }

    #[test]
    fn one_statement_and_single_texts_need_no_lists() {
        let document = json!({
            "Version": "2012-10-17",
            "Statement": { "Effect": "Allow", "Action": "ecs:ListTasks", "Resource": "*" },
        });
        let policy = Policy::read(&document).unwrap();
        assert_eq!(policy.statements[0].actions, ["ecs:listtasks"]);
        assert_eq!(policy.statements[0].resources, ["*"]);
    }

    #[test]
    fn what_is_not_evaluated_is_named_with_its_statement() {
        let with = |name: &str, value: Value| {
            let mut statement = json!({
                "Sid": "S", "Effect": "Allow", "Action": "a:B", "Resource": "*",
            });
            statement[name] = value;
            refused(statement)
        };
        for (name, value, expected) in [
            (
                "NotAction",
                json!("a:B"),
                "statement 1 (S): NotAction is not evaluated here",
            ),
            (
                "NotResource",
                json!("*"),
                "statement 1 (S): NotResource is not evaluated here",
            ),
            (
                "Principal",
                json!("*"),
                "statement 1 (S): Principal is not evaluated here",
            ),
            (
                "Condition",
                json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } }),
                "statement 1 (S): operator IpAddress is not evaluated here",
            ),
            (
                "Condition",
                json!({ "StringEquals": { "a:B": "${now}" } }),
                "statement 1 (S): the variable `${now}` is not known",
            ),
            (
                "Effect",
                json!("allow"),
                "statement 1 (S): Effect is neither Allow nor Deny",
            ),
            (
                "Action",
                json!([]),
                "statement 1 (S): Action is neither a text nor a list of texts",
            ),
            (
                "Resource",
                json!("cluster/a"),
                "statement 1 (S): Resource `cluster/a` is no ARN",
            ),
        ] {
            assert_eq!(with(name, value), expected);
        }
        let old = json!({ "Version": "2008-10-17", "Statement": [] });
        let old = Policy::read(&old).unwrap_err().to_string();
        assert_eq!(old, "Version is not \"2012-10-17\"");
    }
}
