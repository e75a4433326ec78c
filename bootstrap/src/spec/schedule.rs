//! `[groups.NAME.schedules.NAME]`: when a group's bounds change by the clock.

use fleet_agent_config::Problem;

use super::{
    rules::{NODES_MAX, outside},
    shapes, wire,
};

/// Auto Scaling's own, where nobody says another.
const TIME_ZONE: &str = "Etc/UTC";
/// Scheduled actions of one Auto Scaling group (Auto Scaling quotas).
const SCHEDULES_MAX: usize = 125;
/// The five fields of a time, with their bounds (Auto Scaling guide, "Scheduled scaling").
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
];

/// A change of a group by the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// When: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// In which time zone of the IANA's.
    pub time_zone: String,
    /// New lower bound.
    pub min: Option<u32>,
    /// New upper bound.
    pub max: Option<u32>,
    /// New number of nodes, which ECS then goes on scaling.
    pub desired: Option<u32>,
}

impl From<wire::Schedule> for Schedule {
    fn from(schedule: wire::Schedule) -> Self {
        Self {
            cron: schedule.cron,
            time_zone: schedule.time_zone.unwrap_or_else(|| TIME_ZONE.to_owned()),
            min: schedule.min,
            max: schedule.max,
            desired: schedule.desired,
        }
    }
}

/// What is wrong with the schedules at `key`.
pub(super) fn problems<'a>(
    key: &str,
    schedules: impl ExactSizeIterator<Item = (&'a String, &'a wire::Schedule)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let count = schedules.len();
    if count > SCHEDULES_MAX {
        let why = format!("holds {count}: Auto Scaling takes at most {SCHEDULES_MAX}");
        problems.push(Problem::new(key, why));
    }
    for (name, schedule) in schedules {
        let mut wrong = |field: &str, why: Option<String>| {
            problems.extend(why.map(|why| Problem::new(format!("{key}.{name}{field}"), why)));
        };
        wrong("", shapes::name(name));
        wrong(".cron", cron(&schedule.cron));
        wrong(
            ".time_zone",
            schedule.time_zone.as_deref().and_then(time_zone),
        );
        let sizes = [
            (".min", schedule.min),
            (".desired", schedule.desired),
            (".max", schedule.max),
        ];
        for (field, size) in sizes {
            let why = "it is a number of nodes";
            wrong(
                field,
                size.and_then(|size| outside(size, 0, NODES_MAX, why)),
            );
        }
        let given: Vec<u32> = sizes.iter().filter_map(|(_, size)| *size).collect();
        if given.is_empty() {
            let why = "changes nothing: say `min`, `max` or `desired`";
            wrong("", Some(why.to_owned()));
        }
        if !given.is_sorted() {
            let why = "has `min`, `desired` and `max` out of order";
            wrong("", Some(why.to_owned()));
        }
    }
    problems
}

fn cron(value: &str) -> Option<String> {
    let example = "five fields such as \"0 7 * * 1-5\", for 7:00 from Monday to Friday";
    if value.is_empty() {
        return Some(format!("is missing: fill in {example}"));
    }
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!("`{value}` is not {example}"));
    }
    let mut pairs = fields.iter().zip(FIELDS);
    let (field, (name, least, most)) =
        pairs.find(|(field, (_, least, most))| !is_field(field, *least, *most))?;
    Some(format!(
        "`{field}` is no {name}: {least} to {most}, or *, with , - and / between"
    ))
}

/// Lists of ranges with steps: `*/15`, `1-5`, `0,30`, `MON-FRI`.
fn is_field(field: &str, least: u32, most: u32) -> bool {
    let is_value = |value: &str| {
        let is_name = value.len() == 3 && value.bytes().all(|b| b.is_ascii_alphabetic());
        // Months and days of the week have names; only they are bounded so.
        let named = is_name && matches!(most, 7 | 12);
        named || is_number(value, least, most)
    };
    field.split(',').all(|part| {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let is_range = match range.split_once('-') {
            Some((from, to)) => is_value(from) && is_value(to),
            None => range == "*" || is_value(range),
        };
        is_range && is_number(step, 1, most.max(1))
    })
}

fn is_number(text: &str, least: u32, most: u32) -> bool {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain && text.parse().is_ok_and(|n| (least..=most).contains(&n))
}

/// Auto Scaling knows those of the IANA; which they are changes with the years.
fn time_zone(value: &str) -> Option<String> {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    (!value.split('/').all(is_part))
        .then(|| format!("`{value}` is not a time zone such as Europe/Berlin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    fn of(text: &str) -> String {
        let schedule: wire::Schedule = toml::from_str(text).expect("a schedule");
        let problems = problems("s", [(&"a".to_owned(), &schedule)].into_iter());
        told(&problems)
    }

    #[test]
    fn times_sizes_and_zones_that_auto_scaling_takes_are_taken() {
        for text in [
            "cron = \"0 7 * * 1-5\"\nmin = 2",
            "cron = \"*/15 0,12 1-31/2 JAN-MAR MON,FRI\"\nmax = 0",
            "cron = \"59 23 31 12 7\"\nmin = 1\ndesired = 1\nmax = 1\ntime_zone = \"America/Argentina/Buenos_Aires\"",
            "cron = \"0 0 * * *\"\ndesired = 3\ntime_zone = \"Etc/GMT+1\"",
        ] {
            assert_eq!(of(text), "", "{text}");
        }
    }

    #[test]
    fn what_it_would_refuse_is_refused() {
        for (text, part) in [
            ("min = 1", "s.a.cron: is missing"),
            ("cron = \"0 7 * *\"\nmin = 1", "is not five fields"),
            (
                "cron = \"60 7 * * *\"\nmin = 1",
                "`60` is no minute: 0 to 59",
            ),
            ("cron = \"0 24 * * *\"\nmin = 1", "`24` is no hour"),
            (
                "cron = \"0 7 * * 1-\"\nmin = 1",
                "`1-` is no day of the week",
            ),
            ("cron = \"0 MON * * *\"\nmin = 1", "`MON` is no hour"),
            (
                "cron = \"0 7 * * */0\"\nmin = 1",
                "`*/0` is no day of the week",
            ),
            ("cron = \"0 7 * * *\"", "s.a: changes nothing"),
            ("cron = \"0 7 * * *\"\nmin = 3\nmax = 2", "s.a: has `min`"),
            (
                "cron = \"0 7 * * *\"\nmax = 5001",
                "s.a.max: 5001 is outside",
            ),
            (
                "cron = \"0 7 * * *\"\nmin = 1\ntime_zone = \"UTC+1 \"",
                "s.a.time_zone: `UTC+1 ` is not a time zone",
            ),
        ] {
            assert!(of(text).contains(part), "{text}: {}", of(text));
        }
    }
}
