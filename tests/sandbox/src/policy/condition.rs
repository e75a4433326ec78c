//! Conditions: operators on the keys of a request.

use super::{
    evaluate::Context,
    pattern::{Manner, arn_matches, matches},
};

/// One operator on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) operator: Operator,
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

/// `ForAllValues:StringLikeIfExists` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    quantifier: Option<Quantifier>,
    test: Test,
    negated: bool,
    if_exists: bool,
}

/// How many values of the request have to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    All,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Bool,
    /// Whether the key is absent.
    Null,
}

impl Operator {
    /// `None` for one that is not known here.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (quantifier, rest) = match name.split_once(':') {
            Some(("ForAllValues", rest)) => (Some(Quantifier::All), rest),
            Some(("ForAnyValue", rest)) => (Some(Quantifier::Any), rest),
            Some(_) => return None,
            None => (None, name),
        };
        let (rest, if_exists) = match rest.strip_suffix("IfExists") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (test, negated) = match rest {
            "StringEquals" => (Test::Equals, false),
            "StringNotEquals" => (Test::Equals, true),
            "StringEqualsIgnoreCase" => (Test::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoreCase, true),
            "StringLike" => (Test::Like, false),
            "StringNotLike" => (Test::Like, true),
            // The two are the same (IAM user guide).
            "ArnEquals" | "ArnLike" => (Test::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
            "Bool" => (Test::Bool, false),
            "Null" if quantifier.is_none() && !if_exists => (Test::Null, false),
            _ => return None,
        };
        Some(Self {
            quantifier,
            test,
            negated,
            if_exists,
        })
    }
}

impl Condition {
    pub(super) fn holds(&self, context: &Context) -> bool {
        let Operator {
            quantifier,
            test,
            negated,
            if_exists,
        } = self.operator;
        let found = context.all(&self.key);
        if test == Test::Null {
            let absent = if found.is_empty() { "true" } else { "false" };
            return self.values.iter().any(|value| value == absent);
        }
        if found.is_empty() {
            let vacuous = match quantifier {
                Some(Quantifier::All) => true,
                Some(Quantifier::Any) => false,
                None => negated,
            };
            return if_exists || vacuous;
        }
        let is_among = |found: &String| {
            let mut values = self.values.iter();
            values.any(|value| test.holds(value, found, context))
        };
        match (quantifier, negated) {
            (Some(Quantifier::All), false) => found.iter().all(is_among),
            (Some(Quantifier::All) | None, true) => !found.iter().any(is_among),
            (Some(Quantifier::Any) | None, false) => found.iter().any(is_among),
            (Some(Quantifier::Any), true) => !found.iter().all(is_among),
        }
    }
}

impl Test {
    fn holds(self, value: &str, found: &str, context: &Context) -> bool {
        match self {
            Self::Equals => matches(value, found, Manner::Exactly, context),
            Self::EqualsIgnoreCase | Self::Bool => {
                matches(value, found, Manner::IgnoringCase, context)
            }
            Self::Like => matches(value, found, Manner::Like, context),
            Self::Arn => arn_matches(value, found, context),
            Self::Null => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(operator: &str, values: &[&str], found: &[&str]) -> bool {
        let condition = Condition {
            operator: Operator::parse(operator).unwrap(),
            key: "a:Key".to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        condition.holds(&found.iter().map(|&value| ("A:key", value)).collect())
    }

    #[test]
    fn operators_on_one_value() {
        for (operator, values, found, expected) in [
            ("StringEquals", &["a", "b"][..], &["b"][..], true),
            ("StringEquals", &["a"], &["A"], false),
            ("StringEquals", &["a*"], &["ab"], false),
            ("StringEquals", &["a"], &[], false),
            ("StringEqualsIfExists", &["a"], &[], true),
            ("StringEqualsIfExists", &["a"], &["b"], false),
            ("StringNotEquals", &["a", "b"], &["b"], false),
            ("StringNotEquals", &["a"], &["b"], true),
            ("StringNotEquals", &["a"], &[], true),
            ("StringEqualsIgnoreCase", &["a"], &["A"], true),
            ("StringLike", &["a*"], &["ab"], true),
            ("StringNotLike", &["a*"], &["ab"], false),
            (
                "ArnEquals",
                &["arn:aws:ecs:*:1:cluster/a"],
                &["arn:aws:ecs:r:1:cluster/a"],
                true,
            ),
            (
                "ArnLike",
                &["arn:aws:ecs:*:1:cluster/a"],
                &["arn:aws:ecs:r:1:cluster/b"],
                false,
            ),
            ("Bool", &["true"], &["True"], true),
            ("Null", &["true"], &[], true),
            ("Null", &["true"], &["x"], false),
            ("Null", &["false"], &["x"], true),
        ] {
            assert_eq!(
                holds(operator, values, found),
                expected,
                "{operator} {values:?} {found:?}"
            );
        }
    }

    #[test]
    fn operators_on_many_values() {
        for (operator, values, found, expected) in [
            (
                "ForAllValues:StringEquals",
                &["a", "b"][..],
                &["a", "b"][..],
                true,
            ),
            ("ForAllValues:StringEquals", &["a"], &["a", "b"], false),
            ("ForAllValues:StringEquals", &["a"], &[], true),
            ("ForAnyValue:StringEquals", &["a"], &["a", "b"], true),
            ("ForAnyValue:StringEquals", &["a"], &["b"], false),
            ("ForAnyValue:StringEquals", &["a"], &[], false),
            ("ForAnyValue:StringEqualsIfExists", &["a"], &[], true),
            (
                "ForAllValues:StringNotLike",
                &["fleet:*"],
                &["a", "b"],
                true,
            ),
            (
                "ForAllValues:StringNotLike",
                &["fleet:*"],
                &["a", "fleet:x"],
                false,
            ),
            (
                "ForAnyValue:StringNotLike",
                &["fleet:*"],
                &["a", "fleet:x"],
                true,
            ),
        ] {
            assert_eq!(
                holds(operator, values, found),
                expected,
                "{operator} {values:?} {found:?}"
            );
        }
    }

    #[test]
    fn an_operator_that_is_not_known_is_none() {
        for name in [
            "NumericLessThan",
            "IpAddress",
            "DateGreaterThan",
            "stringequals",
            "ForSome:StringEquals",
            "NullIfExists",
        ] {
            assert_eq!(Operator::parse(name), None, "{name}");
        }
    }
}
