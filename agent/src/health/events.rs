//! What Docker's events say of containers that do not start, or end again and again. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::moment::Moment;

/// Within so long.
const SPAN: Duration = Duration::from_secs(300);
/// So many containers of tasks that were created and ended without having started, and none that did.
const START_FAILURES: usize = 5;
/// So many ends of one family's or sidecar's containers.
const RESTARTS: usize = 10;
/// Names that are kept count of; what comes beyond is not counted before another has been quiet.
const NAMES_MAX: usize = 256;
/// Containers created and not yet started.
const CREATED_MAX: usize = 1_024;

/// What happened to a container of a task or sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Created,
    Started,
    Ended,
}

/// The last minutes' events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    created: BTreeMap<String, Moment>,
    failures: Vec<Moment>,
    ends: BTreeMap<String, Vec<Moment>>,
}

impl Recent {
    /// `name` is its family's or sidecar's.
    pub(crate) fn add(&mut self, happening: Happening, id: &str, name: &str, now: Moment) {
        self.forget(now);
        match happening {
            Happening::Created => {
                if self.created.len() < CREATED_MAX {
                    self.created.insert(id.to_owned(), now);
                }
            }
            Happening::Started => {
                self.created.remove(id);
                self.failures.clear();
            }
            Happening::Ended => {
                if self.created.remove(id).is_some() {
                    self.failures.push(now);
                    self.failures.truncate(START_FAILURES);
                } else if self.ends.len() < NAMES_MAX || self.ends.contains_key(name) {
                    let ends = self.ends.entry(name.to_owned()).or_default();
                    ends.push(now);
                    if ends.len() > RESTARTS {
                        ends.remove(0);
                    }
                }
            }
        }
    }

    /// Whether containers start.
    pub(crate) fn starts(&mut self, now: Moment) -> Result<(), String> {
        self.forget(now);
        if self.failures.len() < START_FAILURES {
            return Ok(());
        }
        Err(format!(
            "{START_FAILURES} containers in {} minutes were created and did not start",
            SPAN.as_secs() / 60
        ))
    }

    /// Whether containers stay.
    pub(crate) fn restarts(&mut self, now: Moment) -> Result<(), String> {
        self.forget(now);
        let stormy = self.ends.iter().filter(|(_, ends)| ends.len() >= RESTARTS);
        let names: Vec<&str> = stormy.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(format!(
            "containers of {} ended {RESTARTS} times in {} minutes",
            names.join(", "),
            SPAN.as_secs() / 60
        ))
    }

    fn forget(&mut self, now: Moment) {
        let is_recent = |at: &Moment| now.since(*at) < SPAN;
        self.failures.retain(is_recent);
        // One that waits for another of its task may be started much later; nobody counts on it.
        self.created.retain(|_, at| is_recent(at));
        self.ends.retain(|_, ends| {
            ends.retain(is_recent);
            !ends.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    #[test]
    fn containers_that_never_start_are_counted_until_one_does() {
        let mut recent = Recent::default();
        for second in 0..5 {
            assert_eq!(recent.starts(at(second)), Ok(()));
            let id = second.to_string();
            recent.add(Happening::Created, &id, "web", at(second));
            recent.add(Happening::Ended, &id, "web", at(second));
        }
        assert!(recent.starts(at(10)).is_err());
        assert_eq!(recent.starts(at(400)), Ok(()), "long ago");
        for second in 500..505 {
            let id = second.to_string();
            recent.add(Happening::Created, &id, "web", at(second));
            recent.add(Happening::Ended, &id, "web", at(second));
        }
        recent.add(Happening::Created, "good", "web", at(506));
        recent.add(Happening::Started, "good", "web", at(506));
        assert_eq!(recent.starts(at(507)), Ok(()));
    }

    #[test]
    fn one_that_ends_again_and_again_is_named() {
        let mut recent = Recent::default();
        for second in 0..9 {
            recent.add(Happening::Started, "1", "logs", at(second));
            recent.add(Happening::Ended, "1", "logs", at(second));
        }
        for _ in 0..9 {
            recent.add(Happening::Ended, "2", "web", at(9));
        }
        assert_eq!(recent.restarts(at(9)), Ok(()));
        recent.add(Happening::Ended, "1", "logs", at(10));
        let told = recent.restarts(at(11)).expect_err("a storm");
        assert!(told.contains("logs") && !told.contains("web"), "{told}");
        assert_eq!(recent.restarts(at(320)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..10_000 {
            let id = number.to_string();
            recent.add(Happening::Created, &id, "web", at(1));
            recent.add(Happening::Ended, &format!("x{id}"), &id, at(1));
        }
        assert!(recent.created.len() <= CREATED_MAX && recent.ends.len() <= NAMES_MAX);
    }
}
