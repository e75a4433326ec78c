//! An operator's drain: what stands in the instance's tag, and how far a node has come with it.

use std::time::Duration;

use fleet_agent_config::{
    Problem,
    names::{attribute, tag},
};

use crate::{cloud::ContainerInstance, desired, spec};

/// Why, where nobody says.
const REASON_DEFAULT: &str = "operator";
/// The agent reads its tags every 10 s and its instance's metadata is seconds behind: one that says
/// nothing for this long will not without help.
const REACTION_LIMIT: Duration = Duration::from_secs(60);
/// What a drain may take beyond its deadline and its sidecars: noticing it, and stopping what is
/// left.
const MARGIN: Duration = Duration::from_secs(180);

/// What is wrong with an instance id.
pub(crate) fn check_instance(id: &str) -> Option<Problem> {
    spec::ec2_id("i", id).map(|why| Problem::new("INSTANCE", why))
}

/// The value of the tag: an id unlike any before, and the reason. The agent knows causes by their
/// ids, so that one which was taken back is never mistaken for the next.
///
/// # Errors
/// What AWS would refuse.
pub(crate) fn request(
    reason: Option<&str>,
    unix_seconds: u64,
    random: u32,
) -> Result<String, Problem> {
    let problem = |why: String| Problem::new("--reason", why);
    let reason = reason.unwrap_or(REASON_DEFAULT).trim();
    if reason.is_empty() {
        return Err(problem("is empty: leave it out, or say why".to_owned()));
    }
    if let Some(why) = spec::tag_value_problem(tag::DRAIN, reason) {
        return Err(problem(why));
    }
    let id = format!("{unix_seconds}-{random:08x}");
    let room = spec::TAG_VALUE_MAX - id.len() - 1;
    if reason.chars().count() > room {
        return Err(problem(format!(
            "is too long: beside the request's id the tag has room for {room} characters"
        )));
    }
    Ok(format!("{id} {reason}"))
}

/// A node at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Auto Scaling's lifecycle state; absent when it is in no group.
    pub(crate) lifecycle: Option<String>,
    /// Absent until it has registered, and after it was deregistered.
    pub(crate) ecs: Option<ContainerInstance>,
    /// Tasks that were told to stop and still hold something, which ECS's counts leave out; read
    /// only once those are zero.
    pub(crate) stopping: usize,
}

impl View {
    fn intent(&self) -> Option<&str> {
        let attributes = &self.ecs.as_ref()?.attributes;
        attributes.get(attribute::INTENT).map(String::as_str)
    }

    /// Whether Auto Scaling takes it away, drained by an operator or not.
    pub(crate) fn is_terminating(&self) -> bool {
        self.lifecycle
            .as_ref()
            .is_some_and(|state| state.starts_with("Terminat"))
    }

    /// Whether it drains already.
    pub(crate) fn is_draining(&self) -> bool {
        self.ecs
            .as_ref()
            .is_some_and(|ecs| ecs.status == "DRAINING")
    }

    /// Whether ECS counts no task that runs or is about to.
    pub(crate) fn counts_no_task(&self) -> bool {
        self.ecs
            .as_ref()
            .is_some_and(|ecs| ecs.running_tasks + ecs.pending_tasks == 0)
    }

    /// `DRAINING . 3 running . 0 pending . intent drain`
    pub(crate) fn story(&self) -> String {
        let Some(ecs) = &self.ecs else {
            let state = self.lifecycle.as_deref().unwrap_or("in no group");
            return format!("{state} . not in ECS");
        };
        let mut parts = vec![
            ecs.status.clone(),
            format!("{} running", ecs.running_tasks),
            format!("{} pending", ecs.pending_tasks),
        ];
        if self.stopping > 0 {
            parts.push(format!("{} stopping", self.stopping));
        }
        parts.push(format!("intent {}", self.intent().unwrap_or("unknown")));
        if !ecs.connected {
            parts.push("ECS agent disconnected".to_owned());
        }
        parts.join(" . ")
    }
}

/// Whether to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// How it is now.
    Done(String),
    /// Why it is not, and what to do.
    Failed(String),
}

/// A wait for a node to be drained, or to serve again.
#[derive(Debug)]
pub(crate) struct Wait {
    undo: bool,
    cluster: String,
    limit: Duration,
    was_registered: bool,
}

impl Wait {
    pub(crate) fn new(undo: bool, cluster: &str, drain: desired::Drain) -> Self {
        let seconds = drain
            .deadline_seconds
            .saturating_add(drain.sidecars_seconds);
        Self {
            undo,
            cluster: cluster.to_owned(),
            limit: MARGIN + Duration::from_secs(seconds.into()),
            was_registered: false,
        }
    }

    /// Judges a node `elapsed` after it was asked.
    pub(crate) fn judge(&mut self, view: &View, elapsed: Duration) -> Verdict {
        if self.undo {
            self.undone(view, elapsed)
        } else {
            self.drained(view, elapsed)
        }
    }

    fn drained(&mut self, view: &View, elapsed: Duration) -> Verdict {
        let Some(ecs) = &view.ecs else {
            return if self.was_registered {
                Verdict::Done("has left ECS".to_owned())
            } else if elapsed < REACTION_LIMIT {
                Verdict::GoOn
            } else {
                Verdict::Failed(
                    "it has not joined ECS, so no task runs on it; its agent sees the request once \
                     it runs: see `journalctl -u fleet-agent` there"
                        .to_owned(),
                )
            };
        };
        self.was_registered = true;
        if view.is_draining() && view.counts_no_task() && view.stopping == 0 {
            return Verdict::Done("is DRAINING, and no task is left on it".to_owned());
        }
        let has_reacted = view.is_draining() || matches!(view.intent(), Some("drain" | "leave"));
        if !has_reacted && elapsed >= REACTION_LIMIT {
            return Verdict::Failed(format!(
                "its agent has not reacted in {} s ({}): see `journalctl -u fleet-agent` there; it \
                 drains once it sees the request",
                elapsed.as_secs(),
                view.story()
            ));
        }
        if elapsed >= self.limit {
            return Verdict::Failed(format!(
                "it is not empty after {} s, though its drain's deadline has passed ({}): see \
                 `journalctl -u fleet-agent` there, and the tasks of {}",
                elapsed.as_secs(),
                view.story(),
                ecs.arn
            ));
        }
        Verdict::GoOn
    }

    fn undone(&self, view: &View, elapsed: Duration) -> Verdict {
        if view.is_terminating() {
            return Verdict::Failed(format!(
                "Auto Scaling takes it away ({}): it does not come back",
                view.lifecycle.as_deref().unwrap_or_default()
            ));
        }
        let serves = match view.intent() {
            Some("drain" | "leave") => false,
            // An ill node that waits for its turn takes tasks until then, unless it is drained as well.
            Some("replace") => !view.is_draining(),
            Some(_) | None => true,
        };
        match &view.ecs {
            Some(ecs) if ecs.status == "ACTIVE" && serves => {
                Verdict::Done("is ACTIVE".to_owned())
            }
            _ if elapsed < REACTION_LIMIT => Verdict::GoOn,
            None => Verdict::Failed(
                "it is not in ECS: see `journalctl -u fleet-agent` there".to_owned(),
            ),
            Some(ecs) if serves => Verdict::Failed(format!(
                "its agent means to serve, but it is {}: somebody else set that, and the agent \
                 takes back only what it set itself; `aws ecs update-container-instances-state \
                 --cluster {} --container-instances {} --status ACTIVE` does",
                ecs.status, self.cluster, ecs.arn
            )),
            Some(_) if view.intent() == Some("leave") => Verdict::Failed(
                "another cause stands, and it is about to leave: `journalctl -u fleet-agent` there \
                 names it"
                    .to_owned(),
            ),
            Some(_) => Verdict::Failed(format!(
                "{} s later it still means to drain ({}): another cause stands, or its agent does \
                 not answer; `journalctl -u fleet-agent` there tells which",
                elapsed.as_secs(),
                view.story()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(59);
    const LATE: Duration = REACTION_LIMIT;

    fn view(status: &str, running: i32, intent: &str) -> View {
        View {
            lifecycle: Some("InService".into()),
            ecs: Some(ContainerInstance {
                arn: "arn:ci".into(),
                status: status.into(),
                connected: true,
                running_tasks: running,
                attributes: [(attribute::INTENT.to_owned(), intent.to_owned())].into(),
                ..ContainerInstance::default()
            }),
            stopping: 0,
        }
    }

    fn wait(undo: bool) -> Wait {
        let drain = desired::Drain {
            deadline_seconds: 600,
            sidecars_seconds: 20,
        };
        Wait::new(undo, "shop-dev", drain)
    }

    fn failed(verdict: Verdict) -> String {
        match verdict {
            Verdict::Failed(why) => why,
            Verdict::GoOn | Verdict::Done(_) => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn a_request_is_an_id_and_a_reason() {
        let at = |reason| request(reason, 1_795_272_300, 0xab);
        assert_eq!(at(None).expect("fits"), "1795272300-000000ab operator");
        assert_eq!(
            at(Some(" disk is full ")).expect("fits"),
            "1795272300-000000ab disk is full"
        );
        let longest = "x".repeat(256 - "1795272300-000000ab ".len());
        assert!(at(Some(&longest)).is_ok());
        for (reason, part) in [
            (" ", "is empty"),
            ("why?", "may hold letters"),
            ("a\nb", "may hold letters"),
            (&format!("{longest}x"), "room for 236 characters"),
            ("key AKIAIOSFODNN7EXAMPLE", "must hold none"),
        ] {
            let problem = at(Some(reason)).expect_err(reason);
            assert_eq!(problem.key, "--reason");
            assert!(problem.message.contains(part), "{}", problem.message);
        }
    }

    #[test]
    fn drained_is_draining_without_a_task_of_any_kind() {
        let done = Verdict::Done("is DRAINING, and no task is left on it".to_owned());
        assert_eq!(wait(false).judge(&view("DRAINING", 0, "drain"), SOON), done);
        let mut stopping = view("DRAINING", 0, "drain");
        stopping.stopping = 1;
        for not_yet in [
            view("ACTIVE", 0, "serve"),
            view("ACTIVE", 0, "drain"),
            view("DRAINING", 2, "drain"),
            stopping,
            View::default(),
        ] {
            let verdict = wait(false).judge(&not_yet, SOON);
            assert_eq!(verdict, Verdict::GoOn, "{}", not_yet.story());
        }
    }

    #[test]
    fn an_agent_that_does_not_react_is_told_of_after_a_minute() {
        let why = failed(wait(false).judge(&view("ACTIVE", 1, "serve"), LATE));
        assert!(why.contains("has not reacted in 60 s"), "{why}");
        assert!(why.contains("journalctl -u fleet-agent"), "{why}");
        let why = failed(wait(false).judge(&View::default(), LATE));
        assert!(why.contains("has not joined ECS"), "{why}");
        // Trying is reacting.
        let trying = view("ACTIVE", 1, "drain");
        assert_eq!(wait(false).judge(&trying, LATE), Verdict::GoOn);
    }

    #[test]
    fn a_drain_is_waited_for_until_its_deadline_and_a_margin() {
        let slow = view("DRAINING", 1, "drain");
        let at = |seconds| wait(false).judge(&slow, Duration::from_secs(seconds));
        assert_eq!(at(799), Verdict::GoOn);
        let why = failed(at(800));
        assert!(why.contains("not empty after 800 s"), "{why}");
    }

    #[test]
    fn a_node_that_left_ecs_is_drained_and_one_that_never_joined_is_not() {
        let mut wait = wait(false);
        assert_eq!(wait.judge(&View::default(), SOON), Verdict::GoOn);
        assert_eq!(
            wait.judge(&view("DRAINING", 1, "leave"), SOON),
            Verdict::GoOn
        );
        let left = wait.judge(&View::default(), LATE);
        assert_eq!(left, Verdict::Done("has left ECS".to_owned()));
    }

    #[test]
    fn a_drain_is_undone_once_the_node_is_active_and_means_it() {
        let done = Verdict::Done("is ACTIVE".to_owned());
        assert_eq!(wait(true).judge(&view("ACTIVE", 3, "serve"), SOON), done);
        for not_yet in [
            view("DRAINING", 0, "drain"),
            view("ACTIVE", 0, "drain"),
            View::default(),
        ] {
            let verdict = wait(true).judge(&not_yet, SOON);
            assert_eq!(verdict, Verdict::GoOn, "{}", not_yet.story());
        }
    }

    #[test]
    fn a_drain_that_stays_has_its_reason_named() {
        let mut terminating = view("DRAINING", 0, "leave");
        terminating.lifecycle = Some("Terminating:Wait".into());
        let why = failed(wait(true).judge(&terminating, Duration::ZERO));
        assert!(why.contains("Terminating:Wait"), "{why}");
        for (status, intent, part) in [
            ("DRAINING", "drain", "another cause stands, or its agent"),
            ("DRAINING", "replace", "another cause stands, or its agent"),
            ("DRAINING", "leave", "about to leave"),
            ("DRAINING", "serve", "--container-instances arn:ci"),
        ] {
            let why = failed(wait(true).judge(&view(status, 0, intent), LATE));
            assert!(why.contains(part), "{why}");
        }
        let why = failed(wait(true).judge(&View::default(), LATE));
        assert!(why.contains("not in ECS"), "{why}");
    }
}
