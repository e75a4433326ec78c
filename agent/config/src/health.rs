//! What becomes of a node that stays impaired.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Problem;

/// One at a time: whatever is wrong with a node may be wrong with what takes its place.
const AT_ONCE_DEFAULT: u32 = 1;
const AT_ONCE: RangeInclusive<u32> = 1..=100;

/// `[health]`, as it stands in both files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How a node that stays impaired is replaced; default `self`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// At most so many of a group's nodes leave or are missing at a time; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_at_once: Option<u32>,
}

/// How a node that stays impaired is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Replacement {
    /// Not at all.
    Never,
    /// It drains, then powers itself off: its group puts another in its place.
    #[serde(rename = "self")]
    Itself,
    /// It has Auto Scaling replace it (SetInstanceHealth), which its role then allows for every
    /// instance of the group.
    Asg,
}

/// [`HealthConfig`], checked and complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How a node that stays impaired is replaced.
    pub replacement: Replacement,
    /// At most so many of a group's nodes leave or are missing at a time.
    pub replace_at_once: u32,
}

impl HealthConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A group's own settings over those of all groups.
    #[must_use]
    pub fn or(self, shared: Self) -> Self {
        Self {
            replacement: self.replacement.or(shared.replacement),
            replace_at_once: self.replace_at_once.or(shared.replace_at_once),
        }
    }

    /// The same with every default filled in: what it comes to does not change.
    #[must_use]
    pub fn completed(self) -> Self {
        let health = self.validate(&mut Vec::new());
        Self {
            replacement: Some(health.replacement),
            replace_at_once: Some(health.replace_at_once),
        }
    }

    /// Checks every rule; what is wrong is added to `problems`.
    pub fn validate(self, problems: &mut Vec<Problem>) -> Health {
        let replace_at_once = self.replace_at_once.unwrap_or(AT_ONCE_DEFAULT);
        if !AT_ONCE.contains(&replace_at_once) {
            problems.push(Problem::new(
                "health.replace_at_once",
                format!(
                    "must be {} to {}; `replacement = \"never\"` replaces none",
                    AT_ONCE.start(),
                    AT_ONCE.end()
                ),
            ));
        }
        Health {
            replacement: self.replacement.unwrap_or(Replacement::Itself),
            replace_at_once,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_own_settings_rule_and_none_is_no_number() {
        let own = HealthConfig {
            replacement: Some(Replacement::Never),
            replace_at_once: None,
        };
        let shared = HealthConfig {
            replacement: Some(Replacement::Asg),
            replace_at_once: Some(0),
        };
        let mut problems = Vec::new();
        let health = own.or(shared).validate(&mut problems);
        assert_eq!(health.replacement, Replacement::Never);
        assert_eq!(problems[0].key, "health.replace_at_once");
    }
}
