//! What a `#cloud-config` of the user's own must look like so that it costs fleet nothing. cloud-init appends
//! its lists to fleet's whatever they hold, and then drops all of `bootcmd`, or of `runcmd`, for one command
//! that it cannot run (cloud-init, `mergers/m_list.py`, `util.shellify`).

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

/// Nothing that cloud-init knows is nested so deep.
const DEPTH_MAX: usize = 64;

/// A problem's line, and what is wrong there.
pub(super) type Wrong = (usize, String);

/// Everything that is wrong with the text.
pub(super) fn problems(text: &str) -> Vec<Wrong> {
    let documents = match Reader(Parser::new_from_str(text)).documents() {
        Ok(documents) => documents,
        Err(error) => {
            let why = format!("cannot be read as YAML: {}", error.info());
            return vec![(error.marker().line(), why)];
        }
    };
    match documents.as_slice() {
        // Comments alone.
        [] => Vec::new(),
        [
            Value {
                kind: Kind::Table(settings),
                ..
            },
        ] => settings.iter().flat_map(setting).collect(),
        [other] => vec![(other.line, "is no table of settings".to_owned())],
        [_, second, ..] => {
            let why = "begins a second document: cloud-init reads one";
            vec![(second.line, why.to_owned())]
        }
    }
}

fn setting((key, value): &(Value, Value)) -> Vec<Wrong> {
    let Kind::Text(name) = &key.kind else {
        return Vec::new();
    };
    let here = |why: &str| vec![(key.line, why.to_owned())];
    let (is_right, wanted): (fn(&Value) -> bool, _) = match name.as_str() {
        // A part may say itself how it is merged, and could put itself in the place of fleet's lists.
        "merge_how" | "merge_type" => {
            return here(
                "says how the file is merged: its lists are appended to fleet's, leave merge_how and merge_type out",
            );
        }
        "<<" => return here("brings in settings with `<<`: write them out"),
        "bootcmd" | "runcmd" => (
            is_command,
            "a text or a list of words: are there quotes missing?",
        ),
        "write_files" => (is_file, "a table with a `path`"),
        _ => return Vec::new(),
    };
    let Kind::List(items) = &value.kind else {
        return here(&format!("gives `{name}` no list"));
    };
    let wrong = items.iter().filter(|item| !is_right(item));
    wrong
        .map(|item| {
            let why = format!("gives `{name}` what is not {wanted}");
            (item.line, why)
        })
        .collect()
}

fn is_command(item: &Value) -> bool {
    match &item.kind {
        Kind::Text(_) => true,
        // Of words cloud-init makes texts.
        Kind::List(words) => words
            .iter()
            .all(|word| matches!(word.kind, Kind::Text(_) | Kind::Other)),
        Kind::Other | Kind::Table(_) => false,
    }
}

fn is_file(item: &Value) -> bool {
    let is_path = |(key, value): &(Value, Value)| {
        matches!(&key.kind, Kind::Text(key) if key == "path")
            && matches!(&value.kind, Kind::Text(path) if !path.is_empty())
    };
    matches!(&item.kind, Kind::Table(entries) if entries.iter().any(is_path))
}

/// A value of YAML, and the line where it begins.
#[derive(Debug)]
struct Value {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text(String),
    /// A number, a date, a truth, nothing, or what stands elsewhere.
    Other,
    List(Vec<Value>),
    Table(Vec<(Value, Value)>),
}

struct Reader<'t>(Parser<'t, StrInput<'t>>);

impl Reader<'_> {
    fn documents(&mut self) -> Result<Vec<Value>, ScanError> {
        let mut documents = Vec::new();
        while let Some(document) = self.value(DEPTH_MAX)? {
            documents.push(document);
        }
        Ok(documents)
    }

    /// `None` at the end of a list, of a table, or of all.
    fn value(&mut self, depth: usize) -> Result<Option<Value>, ScanError> {
        let Some(next) = self.0.next_event() else {
            return Ok(None);
        };
        let (event, span) = next?;
        if depth == 0 {
            return Err(ScanError::new_str(span.start, "nested too deep"));
        }
        let below = depth - 1;
        let kind = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {
                return self.value(depth);
            }
            Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd => return Ok(None),
            Event::Alias(_) => Kind::Other,
            Event::Scalar(text, style, _, tag) if is_text(&text, style, tag.as_deref()) => {
                Kind::Text(text.into_owned())
            }
            Event::Scalar(..) => Kind::Other,
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.value(below)? {
                    items.push(item);
                }
                Kind::List(items)
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                while let Some(key) = self.value(below)? {
                    let Some(value) = self.value(below)? else {
                        break;
                    };
                    entries.push((key, value));
                }
                Kind::Table(entries)
            }
        };
        let line = span.start.line();
        Ok(Some(Value { line, kind }))
    }
}

/// As YAML 1.1 has it, which is what cloud-init reads: there `yes` is a truth and `22:30` a number. What only
/// looks like a number counts as one.
fn is_text(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    const WORDS: [&str; 9] = ["", "~", "null", "true", "false", "yes", "no", "on", "off"];
    if let Some(tag) = tag {
        return tag.suffix == "str";
    }
    let begins_number = |c: char| c.is_ascii_digit() || "+-.".contains(c);
    let is_of_number = |c: char| c.is_ascii_hexdigit() || "+-._: xtTZinfINF".contains(c);
    let is_number = text.starts_with(begins_number) && text.chars().all(is_of_number);
    style != ScalarStyle::Plain
        || !is_number && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(settings: &str) -> String {
        let text = format!("#cloud-config\n{settings}");
        let told: Vec<String> = problems(&text)
            .into_iter()
            .map(|(line, why)| format!("{line} {why}"))
            .collect();
        told.join("; ")
    }

    #[test]
    fn what_cloud_init_runs_is_taken() {
        for text in [
            "",
            "# nothing yet\n",
            "packages: [jq]\nusers:\n- default\n- name: ops\n",
            "runcmd: []\n",
            "bootcmd:\n- 'echo \"now: $(date)\"' # said\n- date\n- [sleep, 5, true]\n- |\n  echo a: b\n",
            "runcmd:\n- 'yes'\n- \"5\"\n- !!str 5\n- echo\n  more\n- 7z x a.7z\n- ./setup\n- 2to3\n",
            "write_files:\n- {path: /etc/a, content: 5}\n- content: |\n    a: - b\n  path: \"/etc/b\"\n",
            "{\"runcmd\": [\n\"a\", [\"b\"]\n]}\n",
            "packages: [\n  jq,\n]\n",
        ] {
            assert_eq!(told(text), "", "{text}");
        }
    }

    #[test]
    fn what_would_cost_fleet_its_own_is_told_with_its_line() {
        for (text, line, part) in [
            (
                "runcmd:\n- a\n- echo hi: there\n",
                4,
                "`runcmd` what is not a text",
            ),
            ("bootcmd:\n- false\n", 3, "`bootcmd` what is not a text"),
            ("runcmd:\n- Yes\n", 3, "a text or"),
            ("runcmd:\n- 22:30\n", 3, "a text or"),
            ("runcmd:\n- 2026-01-31 12:00:00 Z\n", 3, "a text or"),
            ("runcmd:\n- -.INF\n", 3, "a text or"),
            ("runcmd:\n-\n- a\n", 3, "a text or"),
            ("runcmd:\n- [a, [b]]\n", 3, "a text or"),
            ("runcmd:\n- [a, {b: c}]\n", 3, "a text or"),
            ("a: &x [b]\nruncmd: *x\n", 3, "`runcmd` no list"),
            ("runcmd: reboot\n", 2, "`runcmd` no list"),
            ("runcmd:\nbootcmd: {a: b}\n", 2, "`runcmd` no list"),
            (
                "write_files:\n- /etc/a\n",
                3,
                "`write_files` what is not a table",
            ),
            ("write_files:\n- content: a\n", 3, "a table with a `path`"),
            ("write_files:\n- path: 5\n", 3, "a table with a `path`"),
            ("merge_how: dict(replace)\n", 2, "leave merge_how"),
            ("a: &x {runcmd: 5}\n<<: *x\n", 3, "write them out"),
            ("- a\n", 2, "is no table"),
            ("a: b\n---\nc: d\n", 4, "a second document"),
            ("a: [b\n", 3, "cannot be read as YAML"),
            ("runcmd:\n\t- a\n", 3, "cannot be read as YAML: tabs"),
        ] {
            let told = told(text);
            assert!(told.starts_with(&format!("{line} ")), "{text}: {told}");
            assert!(told.contains(part), "{text}: {told}");
        }
        assert_eq!(told("runcmd:\n- 1\n- a\n- 2\n").matches("; ").count(), 1);
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_and_no_stack_overflows() {
        let deep = |levels: usize| format!("a:\n{}b\n", "- ".repeat(levels));
        assert_eq!(told(&deep(DEPTH_MAX - 2)), "");
        assert!(told(&deep(100_000)).contains("too deep"));
    }
}
