//! TOML read so that every error is reported at once, each with its line.
//!
//! serde stops at the first error. [`Document::read`] therefore notes it, removes the key it points
//! at from the parsed table, and tries again until what is left can be read. Wire types must give
//! every field a default, so that a missing key is a rule to check and never a reason to stop.

use std::{collections::BTreeSet, fmt, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line in the file, from 1; 0 when the problem has no place of its own.
    pub line: usize,
    /// Dotted key path, empty for an error of syntax.
    pub key: String,
    /// What is wrong and what to do, as a lower-case fragment.
    pub message: String,
}

impl Problem {
    /// A problem of the value at `key`; [`Document::locate`] adds the line.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            line: 0,
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Everything wrong with one file, ordered by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The file's name, as the user gave it.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file)?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

/// A parsed TOML file that still knows where everything stood.
#[derive(Debug, Clone)]
pub struct Document<'s> {
    file: String,
    source: &'s str,
    root: Spanned<DeTable<'s>>,
}

impl<'s> Document<'s> {
    /// Parses `source`.
    ///
    /// # Errors
    /// All errors of syntax.
    pub fn parse(file: &str, source: &'s str) -> Result<Self, Problems> {
        let (root, errors) = DeTable::parse_recoverable(source);
        if errors.is_empty() {
            return Ok(Self {
                file: file.to_owned(),
                source,
                root,
            });
        }
        let problems: BTreeSet<_> = errors
            .iter()
            .map(|error| Problem {
                line: error.span().map_or(0, |span| line_at(source, span.start)),
                key: String::new(),
                message: error.message().replace('\n', ", "),
            })
            .collect();
        Err(Problems {
            file: file.to_owned(),
            problems: problems.into_iter().collect(),
        })
    }

    /// The keys of the table at `path`; empty when there is no such table.
    pub fn keys(&self, path: &[&str]) -> Vec<String> {
        self.table(path).map_or_else(Vec::new, |table| {
            table.keys().map(|key| key.get_ref().to_string()).collect()
        })
    }

    /// Whether a value stands at `path`.
    pub fn contains(&self, path: &[&str]) -> bool {
        span_of(self.root.get_ref(), path).is_some()
    }

    /// The same document without the value at `key`, a dotted path; `None` when none stands there.
    #[must_use]
    pub fn without(&self, key: &str) -> Option<Self> {
        let path: Vec<&str> = key.split('.').collect();
        let mut rest = self.clone();
        remove(rest.root.get_mut(), &path).then_some(rest)
    }

    /// The same document with the table at `path` laid over its root, and `path`'s first table
    /// taken out. Tables are merged key by key, everything else is replaced. Spans are kept, so
    /// lines still point at where a value was written.
    #[must_use]
    pub fn overlaid(&self, path: &[&str]) -> Self {
        let mut merged = self.clone();
        let overlay = self.table(path).cloned();
        if let Some(first) = path.first() {
            merged.root.get_mut().remove(*first);
        }
        if let Some(overlay) = overlay {
            overlay_table(merged.root.get_mut(), overlay);
        }
        merged
    }

    /// Reads a wire type, and every problem met on the way: wrong types and unknown keys.
    /// What could not be read is left at its default.
    pub fn read<T: DeserializeOwned + Default>(&self) -> (T, Vec<Problem>) {
        let mut root = self.root.clone();
        let mut problems = Vec::new();
        loop {
            let error = match T::deserialize(toml::Deserializer::from(root.clone())) {
                Ok(value) => return (value, problems),
                Err(error) => error,
            };
            let removed = error
                .span()
                .and_then(|span| remove_at(root.get_mut(), &span, &mut Vec::new()));
            let Some((path, span)) = removed else {
                problems.push(Problem::new("", plain(error.message())));
                return (T::default(), problems);
            };
            problems.push(Problem {
                line: line_at(self.source, span.start),
                message: explain(error.message(), &path),
                key: path.join("."),
            });
        }
    }

    /// Adds lines to problems found by later rules, sorts them, and makes them one error.
    ///
    /// # Errors
    /// When there is any problem.
    pub fn check(&self, problems: Vec<Problem>) -> Result<(), Problems> {
        if problems.is_empty() {
            return Ok(());
        }
        let problems: BTreeSet<_> = problems
            .into_iter()
            .map(|problem| self.locate(problem))
            .collect();
        Err(Problems {
            file: self.file.clone(),
            problems: problems.into_iter().collect(),
        })
    }

    /// Gives a problem the line of its key, or of the nearest table above it.
    fn locate(&self, mut problem: Problem) -> Problem {
        if problem.line == 0 {
            let parts: Vec<&str> = problem.key.split('.').collect();
            problem.line = (1..=parts.len())
                .rev()
                .find_map(|depth| span_of(self.root.get_ref(), &parts[..depth]))
                .map_or(0, |span| line_at(self.source, span.start));
        }
        problem
    }

    fn table(&self, path: &[&str]) -> Option<&DeTable<'s>> {
        let mut table = self.root.get_ref();
        for key in path {
            table = table.get(*key)?.get_ref().as_table()?;
        }
        Some(table)
    }
}

fn overlay_table<'s>(base: &mut DeTable<'s>, overlay: DeTable<'s>) {
    for (key, value) in overlay {
        if let Some(below) = base.get_mut(key.get_ref().as_ref())
            && let DeValue::Table(below) = below.get_mut()
            && let DeValue::Table(above) = value.get_ref()
        {
            overlay_table(below, above.clone());
            continue;
        }
        base.remove(key.get_ref().as_ref());
        base.insert(key, value);
    }
}

/// Where the key at `path` was written. Keys may hold dots, so the longest match wins.
fn span_of(table: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    (1..=path.len()).rev().find_map(|taken| {
        let name = path[..taken].join(".");
        let (key, value) = table.get_key_value(name.as_str())?;
        if taken == path.len() {
            return Some(key.span());
        }
        span_of(value.get_ref().as_table()?, &path[taken..])
    })
}

/// Removes the key at `path`; false when there is none. As with [`span_of`], the longest match wins.
fn remove(table: &mut DeTable<'_>, path: &[&str]) -> bool {
    (1..=path.len()).rev().any(|taken| {
        let name = path[..taken].join(".");
        if taken == path.len() {
            return table.remove(name.as_str()).is_some();
        }
        match table.get_mut(name.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, &path[taken..]),
            _ => false,
        }
    })
}

/// Removes the key that stands at `span`, or else the innermost one whose value holds it; returns
/// its path and where the key stands.
fn remove_at(
    table: &mut DeTable<'_>,
    span: &Range<usize>,
    path: &mut Vec<String>,
) -> Option<(Vec<String>, Range<usize>)> {
    let mut holder = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        if key.span() == *span {
            holder = Some((name, key.span()));
            break;
        }
        if let DeValue::Table(inner) = value.get_mut() {
            path.push(name.clone());
            if let Some(found) = remove_at(inner, span, path) {
                return Some(found);
            }
            path.pop();
        }
        if value.span().start <= span.start && span.end <= value.span().end {
            holder = Some((name, key.span()));
        }
    }
    let (name, key_span) = holder?;
    table.remove(name.as_str());
    path.push(name);
    Some((path.clone(), key_span))
}

/// serde's wording, with a suggestion where a key or a word is a misspelling.
fn explain(message: &str, path: &[String]) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (found, known) = quoted(rest);
        // Within an array of tables the path ends at the array.
        let key = match path.last() {
            Some(last) if last != found => format!("unknown key `{found}`"),
            Some(_) | None => "unknown key".to_owned(),
        };
        return match nearest(found, known.iter().copied()) {
            Some(near) => format!("{key}, did you mean `{near}`?"),
            None if known.is_empty() => key,
            None => format!("{key}, expected one of {}", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, known) = quoted(rest);
        let lower = found.to_lowercase();
        if let Some(near) = nearest(&lower, known.iter().copied()) {
            return format!("`{found}` is unknown, did you mean `{near}`?");
        }
    }
    unquoted(message, path)
}

/// What serde met, and what it would have taken: both stand in backticks.
fn quoted(message: &str) -> (&str, Vec<&str>) {
    let mut words = message.split('`').skip(1).step_by(2);
    (words.next().unwrap_or_default(), words.collect())
}

/// serde quotes the value it met, which in an environment may be a secret.
fn unquoted(message: &str, path: &[String]) -> String {
    let (found, expected) = message.split_once("`, ").unwrap_or((message, ""));
    if path.iter().any(|key| key == "env" || key == "ecs")
        && let Some((kind, _value)) = found.split_once(" `")
    {
        return plain(&format!("{kind}, {expected}"));
    }
    plain(message)
}

fn plain(message: &str) -> String {
    message.replace('\n', ", ")
}

/// The known name that `name` most likely misspells: at most a third of it would have to change.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.len() / 3).max(1);
    known
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

fn line_at(source: &str, offset: usize) -> usize {
    1 + source.as_bytes()[..offset.min(source.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Group {
        min: Option<u32>,
        types: Vec<String>,
        kind: Option<Kind>,
        rules: Vec<Rule>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Standard,
        Unlimited,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Rule {
        weight: u32,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct File {
        name: String,
        groups: BTreeMap<String, Group>,
    }

    fn problems(source: &str) -> String {
        let document = match Document::parse("f.toml", source) {
            Ok(document) => document,
            Err(problems) => return problems.to_string(),
        };
        let (_, problems) = document.read::<File>();
        document
            .check(problems)
            .map_or_else(|problems| problems.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn reports_every_wrong_type_and_unknown_key_with_its_line() {
        let source = "name = 3\n\n[groups.web]\nmim = 1\nmin = -1\ntypes = [\"a\", 7]\n[groups.db]\nmin = 2\nother = 1\n";
        assert_eq!(
            problems(source),
            "f.toml:1: name: invalid type: integer `3`, expected a string\n\
             f.toml:4: groups.web.mim: unknown key, did you mean `min`?\n\
             f.toml:5: groups.web.min: invalid value: integer `-1`, expected u32\n\
             f.toml:6: groups.web.types: invalid type: integer `7`, expected a string\n\
             f.toml:9: groups.db.other: unknown key, expected one of min, types, kind, rules"
        );
    }

    #[test]
    fn a_misspelling_is_told_wherever_it_stands() {
        let source = "[groups.web]\nkind = \"Unlimitd\"\nrules = [{ weight = 1 }, { wieght = 2 }]\n\
                      [groups.db]\nkind = \"fast\"\n";
        assert_eq!(
            problems(source),
            "f.toml:2: groups.web.kind: `Unlimitd` is unknown, did you mean `unlimited`?\n\
             f.toml:3: groups.web.rules: unknown key `wieght`, did you mean `weight`?\n\
             f.toml:5: groups.db.kind: unknown variant `fast`, expected `standard` or `unlimited`"
        );
    }

    #[test]
    fn an_unknown_table_is_reported_once() {
        assert_eq!(
            problems("[group.web]\nmin = 1\n"),
            "f.toml:1: group: unknown key, did you mean `groups`?"
        );
    }

    #[test]
    fn a_value_of_an_environment_is_never_quoted() {
        let quoted = "invalid type: integer `98765`, expected a string";
        let path = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        assert_eq!(explain(quoted, &path(&["groups", "min"])), quoted);
        assert_eq!(
            explain(quoted, &path(&["sidecars", "a", "env", "DB_PASSWORD"])),
            "invalid type: integer, expected a string"
        );
    }

    #[test]
    fn what_is_right_is_still_read() {
        let document = Document::parse(
            "f",
            "name = \"n\"\n[groups.a]\nmin = \"x\"\ntypes = [\"t\"]\n",
        )
        .expect("syntax");
        let (file, problems) = document.read::<File>();
        assert_eq!(file.groups["a"].types, ["t"]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn reports_every_syntax_error() {
        let text = problems("name = \nmin = @\n");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("f.toml:1: "), "{text}");
    }

    #[test]
    fn an_overlay_merges_tables_and_keeps_lines() {
        let source = "name = \"n\"\n[groups.a]\nmin = 1\ntypes = [\"t\"]\n[environments.dev.groups.a]\nmin = 2\n[environments.prod.groups.a]\nmin = \"x\"\n";
        let document = Document::parse("f", source).expect("syntax");
        let (dev, _) = document.overlaid(&["environments", "dev"]).read::<File>();
        assert_eq!(
            dev.groups["a"],
            Group {
                min: Some(2),
                types: vec!["t".into()],
                ..Group::default()
            }
        );
        let (_, problems) = document.overlaid(&["environments", "prod"]).read::<File>();
        assert_eq!(
            (problems[0].line, problems[0].key.as_str()),
            (8, "groups.a.min")
        );
    }

    #[test]
    fn a_value_is_taken_out_by_its_dotted_path() {
        let source = "name = \"n\"\n[groups.\"a.b\"]\nmin = 1\ntypes = [\"t\"]\n";
        let document = Document::parse("f", source).expect("syntax");
        let rest = document.without("groups.a.b.min").expect("is there");
        let (file, _) = rest.read::<File>();
        assert_eq!((file.name.as_str(), file.groups["a.b"].min), ("n", None));
        assert_eq!(file.groups["a.b"].types, ["t"]);
        assert!(document.without("groups.a.b.max").is_none());
        assert!(document.without("name.x").is_none() && document.without("").is_none());
        let (file, _) = document.without("groups").expect("is there").read::<File>();
        assert!(file.groups.is_empty());
    }

    #[test]
    fn a_rule_finds_the_line_of_its_key_or_of_the_table_above() {
        let document = Document::parse("f", "\n[groups.\"a.b\"]\nmin = 1\n").expect("syntax");
        let found = |key: &str| document.locate(Problem::new(key, "")).line;
        assert_eq!(found("groups.a.b.min"), 3);
        assert_eq!(found("groups.a.b.max"), 2);
        assert_eq!(found("nowhere"), 0);
    }
}
