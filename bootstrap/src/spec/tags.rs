//! What AWS takes as tags, narrowed to what instance metadata takes where instances carry them.

use std::collections::BTreeMap;

use fleet_agent_config::{Problem, secrets};

/// Tags per resource (EC2 guide, "Tag restrictions").
const COUNT_MAX: usize = 50;
/// Fleet's own: five `fleet:` tags on everything, `fleet:revision` and `fleet:drain` on instances,
/// AmazonECSManaged and Name.
const COUNT_OWN: usize = 9;
const KEY_MAX: usize = 128;
/// Characters in the value of a tag.
pub(crate) const VALUE_MAX: usize = 256;

/// Checks the tags of the table `table`. `on_instances` asks for keys that are legal in instance
/// metadata: one other key makes every launch fail (EC2 guide, "Work with instance tags in IMDS").
pub(super) fn check(
    table: &str,
    tags: &BTreeMap<String, String>,
    on_instances: bool,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in tags {
        let wrong = key_problem(key, on_instances).or_else(|| value_problem(key, value));
        problems.extend(wrong.map(|message| Problem::new(format!("{table}.{key}"), message)));
    }
}

/// Checks how many tags a resource would carry.
pub(super) fn check_count(key: &str, count: usize, problems: &mut Vec<Problem>) {
    let most = COUNT_MAX - COUNT_OWN;
    if count > most {
        problems.push(Problem::new(
            key,
            format!(
                "has {count} tags, [tags] included: AWS takes {COUNT_MAX} and fleet adds {COUNT_OWN} of its own, so leave at most {most}"
            ),
        ));
    }
}

fn key_problem(key: &str, on_instances: bool) -> Option<String> {
    let lower = key.to_ascii_lowercase();
    if lower.starts_with("aws:") {
        return Some("begins with `aws:`, which AWS keeps for itself: rename it".to_owned());
    }
    if lower.starts_with("fleet:") || key == "AmazonECSManaged" {
        return Some("is set by fleet itself, remove it".to_owned());
    }
    if !(1..=KEY_MAX).contains(&key.chars().count()) {
        return Some(format!("must be 1 to {KEY_MAX} characters long"));
    }
    let in_metadata = |c: char| c.is_ascii_alphanumeric() || "+-=.,_:@".contains(c);
    if on_instances && (!key.chars().all(in_metadata) || [".", "..", "_index"].contains(&key)) {
        return Some(
            "is no key for instance metadata, and with it no instance would launch: use letters, digits and + - = . , _ : @"
                .to_owned(),
        );
    }
    (!key.chars().all(is_tag_character))
        .then(|| "may hold letters, digits, spaces and + - = . _ : / @".to_owned())
}

/// What is wrong with the value of a tag.
pub(crate) fn value_problem(key: &str, value: &str) -> Option<String> {
    if let Some(why) = secrets::literal(key, value) {
        return Some(format!(
            "{why}: tags are readable by all, they must hold none"
        ));
    }
    if value.chars().count() > VALUE_MAX {
        return Some(format!("is longer than AWS's {VALUE_MAX} characters"));
    }
    (!value.chars().all(is_tag_character))
        .then(|| format!("`{value}` may hold letters, digits, spaces and + - = . _ : / @"))
}

/// What every service takes (IAM TagRole is the narrowest).
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(key: &str, value: &str, on_instances: bool) -> Option<String> {
        let mut problems = Vec::new();
        let tags = [(key.to_owned(), value.to_owned())].into();
        check("tags", &tags, on_instances, &mut problems);
        problems.pop().map(|problem| problem.message)
    }

    #[test]
    fn takes_what_aws_takes() {
        assert_eq!(wrong("cost-centre", "42 / Zürich", true), None);
        assert_eq!(wrong("cost centre/x", "42", false), None);
        assert_eq!(wrong("empty", "", true), None);
    }

    #[test]
    fn refuses_what_aws_refuses() {
        for (key, value, on_instances, part) in [
            ("cost centre", "42", true, "instance metadata"),
            ("a/b", "42", true, "instance metadata"),
            ("_index", "42", true, "instance metadata"),
            ("AWS:x", "42", false, "keeps for itself"),
            ("fleet:owner", "me", true, "set by fleet itself"),
            ("AmazonECSManaged", "", true, "set by fleet itself"),
            ("", "x", false, "1 to 128"),
            ("a#b", "x", false, "may hold"),
            ("a", "x;y", false, "may hold"),
            ("api_key", "hunter2", false, "named like a secret"),
            ("a", &"x".repeat(257), false, "longer than"),
        ] {
            let message =
                wrong(key, value, on_instances).unwrap_or_else(|| panic!("{key}={value} passed"));
            assert!(message.contains(part), "{key}={value}: {message}");
        }
    }

    #[test]
    fn counts_fleets_own_tags_too() {
        let mut problems = Vec::new();
        check_count("tags", 41, &mut problems);
        assert_eq!(problems, []);
        check_count("tags", 42, &mut problems);
        assert_eq!(problems.len(), 1);
    }
}
