//! The types of variables, and what the ECS agent does with a value that does not fit.

use std::{fmt, time::Duration as Span};

use serde_json::Value;

/// The type of a variable, with the ECS agent's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text on one line.
    Text,
    /// Go's `strconv.ParseBool`.
    Bool,
    /// Go's duration syntax, milliseconds.
    Duration {
        /// The least it takes.
        least: u32,
        /// The most it takes.
        most: u32,
        /// What it does outside of that.
        beyond: Beyond,
    },
    /// An integer in a range.
    Integer(u32, u32),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `steady,burst`.
    Rate,
    /// `low-high`.
    PortRange,
    /// A JSON array of ports.
    JsonPorts,
    /// A JSON array of strings.
    JsonStrings,
    /// A JSON array of Docker's logging drivers.
    JsonDrivers,
    /// A JSON array of address ranges.
    JsonCidrs,
    /// A JSON object of strings.
    JsonMap,
    /// A JSON object of ECS attributes.
    JsonAttributes,
    /// A JSON object of tags.
    JsonTags,
    /// Any JSON.
    Json,
}

/// What the ECS agent does with a duration outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// Takes the nearest bound.
    Raised,
    /// Takes the default.
    Ignored,
    /// Does not start.
    Fatal,
}

pub(super) const fn at_least(least: u32, beyond: Beyond) -> Kind {
    let most = u32::MAX;
    Kind::Duration {
        least,
        most,
        beyond,
    }
}

pub(super) const fn between(least: u32, most: u32) -> Kind {
    let beyond = Beyond::Raised;
    Kind::Duration {
        least,
        most,
        beyond,
    }
}

const SILENT: &str = "the ECS agent would silently use its default";
const FATAL: &str = "the ECS agent would not start";
/// Bad attributes are refused by ECS, which the ECS agent takes for the end (exit code 5, which
/// systemd does not restart).
const NEVER_JOINS: &str = "ECS would refuse the instance, which never joins";

/// Logging drivers that ECS agents know (`dockerclient/logging_drivers.go`).
const DRIVERS: &[&str] = &[
    "awsfirelens",
    "awslogs",
    "fluentd",
    "gelf",
    "journald",
    "json-file",
    "logentries",
    "none",
    "splunk",
    "sumologic",
    "syslog",
];

/// ECS takes ten custom attributes of an instance (PutAttributes); fleet's own are seven of them.
const ATTRIBUTES: usize = 3;
/// Tags of an ECS resource.
pub(super) const TAGS: usize = 50;

/// Why the ECS agent would not take `value`, and what it would do instead.
pub(super) fn reason(kind: Kind, value: &str) -> Option<String> {
    if value.contains(['\n', '\r']) {
        return Some("must be one line".to_owned());
    }
    if value != value.trim() {
        return Some("must not begin or end with a space".to_owned());
    }
    if value.starts_with(['"', '\'']) {
        return Some(
            "must not be quoted: the ECS agent would take the quotes as part of it".to_owned(),
        );
    }
    match kind {
        Kind::Text => None,
        Kind::Bool => {
            (!is_go_bool(value)).then(|| format!("`{value}` is not true or false: {SILENT}"))
        }
        Kind::Duration {
            least,
            most,
            beyond,
        } => duration(value, least, most, beyond),
        Kind::Integer(low, high) => match value.parse::<u32>() {
            Ok(number) if (low..=high).contains(&number) => None,
            Ok(_) | Err(_) => Some(format!(
                "`{value}` is not a whole number from {low} to {high}: {SILENT}"
            )),
        },
        Kind::Word(words) => (!words.contains(&value))
            .then(|| format!("`{value}` is not one of {}: {SILENT}", words.join(", "))),
        Kind::Rate => pair::<u32>(value, ',')
            .is_none()
            .then(|| format!("`{value}` is not `steady,burst`: {SILENT}")),
        Kind::PortRange => pair::<u16>(value, '-')
            .is_none_or(|(low, high)| low >= high)
            .then(|| format!("`{value}` is not a range like `32768-60999`: {SILENT}")),
        Kind::JsonPorts
        | Kind::JsonStrings
        | Kind::JsonDrivers
        | Kind::JsonCidrs
        | Kind::JsonMap
        | Kind::JsonAttributes
        | Kind::JsonTags
        | Kind::Json => json(kind, value),
    }
}

fn duration(value: &str, least: u32, most: u32, beyond: Beyond) -> Option<String> {
    let Some(ms) = go_duration_milliseconds(value) else {
        return Some(format!(
            "`{value}` is not a duration like `30s` or `1h30m`: {SILENT}"
        ));
    };
    let (side, bound) = if ms < f64::from(least) {
        ("below", least)
    } else if ms > f64::from(most) {
        ("above", most)
    } else {
        return None;
    };
    let bound = Go(bound);
    Some(match beyond {
        Beyond::Raised => {
            format!("`{value}` is {side} {bound}: the ECS agent would take {bound} instead")
        }
        Beyond::Ignored => format!("`{value}` is {side} {bound}: {SILENT}"),
        Beyond::Fatal => format!("`{value}` is {side} {bound}: {FATAL}"),
    })
}

fn json(kind: Kind, value: &str) -> Option<String> {
    let not = |what: &str| Some(format!("`{value}` is not {what}: {FATAL}"));
    let Ok(parsed) = serde_json::from_str::<Value>(value) else {
        return not("JSON");
    };
    let array = |each: fn(&Value) -> bool| {
        parsed
            .as_array()
            .is_some_and(|items| items.iter().all(each))
    };
    let strings = || {
        parsed.as_object().and_then(|map| {
            let pairs = map
                .iter()
                .map(|(key, value)| Some((key.as_str(), value.as_str()?)));
            pairs.collect::<Option<Vec<_>>>()
        })
    };
    let is_port = |port: &Value| port.as_u64().is_some_and(|port| port <= 65_535);
    match kind {
        Kind::JsonPorts if !array(is_port) => not("a JSON array of ports"),
        Kind::JsonStrings | Kind::JsonDrivers if !array(Value::is_string) => {
            not("a JSON array of strings")
        }
        Kind::JsonCidrs if !array(is_cidr) => not("a JSON array of CIDRs like `10.0.0.0/8`"),
        Kind::JsonDrivers => parsed
            .as_array()?
            .iter()
            .find_map(|driver| unknown_driver(driver.as_str()?)),
        Kind::JsonMap | Kind::JsonAttributes | Kind::JsonTags => match strings() {
            None => not("a JSON object of strings"),
            Some(pairs) if kind == Kind::JsonAttributes => attributes(&pairs),
            Some(pairs) if kind == Kind::JsonTags => tags(&pairs),
            Some(_) => None,
        },
        // What is any JSON, or fits what was looked at above.
        Kind::JsonPorts
        | Kind::JsonStrings
        | Kind::JsonCidrs
        | Kind::Json
        | Kind::Text
        | Kind::Bool
        | Kind::Duration { .. }
        | Kind::Integer(..)
        | Kind::Word(_)
        | Kind::Rate
        | Kind::PortRange => None,
    }
}

fn is_cidr(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.parse::<ipnet::IpNet>().is_ok())
}

fn unknown_driver(name: &str) -> Option<String> {
    if DRIVERS.contains(&name) {
        return None;
    }
    let near = crate::document::nearest(name, DRIVERS.iter().copied());
    let hint = near.map_or_else(
        || format!("expected one of {}", DRIVERS.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Some(format!("`{name}` is no logging driver: {FATAL}; {hint}"))
}

/// ECS's rules (API reference, Attribute), and fleet's.
fn attributes(pairs: &[(&str, &str)]) -> Option<String> {
    let text = |text: &str, special: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || special.contains(c);
        (1..=128).contains(&text.len()) && text.chars().all(fits)
    };
    for (name, value) in pairs {
        if !text(name, "-_./\\") {
            return Some(format!(
                "`{name}` is no name of an attribute: {NEVER_JOINS}"
            ));
        }
        if name.starts_with("fleet.") || name.starts_with("ecs.") {
            return Some(format!(
                "`{name}` is one of fleet's own or of ECS's: choose another"
            ));
        }
        if !text(value, "-_.@/\\: ") || value.trim() != *value {
            return Some(format!(
                "the value of `{name}` is none that ECS takes: {NEVER_JOINS}"
            ));
        }
    }
    (pairs.len() > ATTRIBUTES).then(|| {
        format!("{ATTRIBUTES} at most: ECS takes 10 of an instance, and the rest are fleet's own")
    })
}

/// ECS's rules (API reference, Tag).
fn tags(pairs: &[(&str, &str)]) -> Option<String> {
    for (key, value) in pairs {
        if key.to_lowercase().starts_with("aws:") {
            return Some(format!(
                "`{key}` begins with `aws:`, which is AWS's own: {NEVER_JOINS}"
            ));
        }
        if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
            return Some(format!(
                "`{key}` or its value is too long, or empty: keys are 1 to 128 characters, values up to 256"
            ));
        }
    }
    (pairs.len() > TAGS).then(|| format!("{TAGS} at most: {NEVER_JOINS}"))
}

fn pair<T: std::str::FromStr>(value: &str, separator: char) -> Option<(T, T)> {
    let (a, b) = value.split_once(separator)?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn is_go_bool(value: &str) -> bool {
    matches!(
        value,
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    )
}

/// Milliseconds as people write them in Go: `10m`, `45s`, `8ms`.
struct Go(u32);

impl fmt::Display for Go {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = Span::from_millis(self.0.into());
        match (span.as_secs(), span.subsec_millis()) {
            (seconds, 0) if seconds % 60 == 0 && seconds > 0 => write!(f, "{}m", seconds / 60),
            (seconds, 0) => write!(f, "{seconds}s"),
            _ => write!(f, "{}ms", self.0),
        }
    }
}

/// Go's `time.ParseDuration` for what is not negative: `1h30m`, `1.5s`, `0`.
pub(super) fn go_duration_milliseconds(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-6,
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3_600e3,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}
