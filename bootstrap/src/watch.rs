//! Waits until nodes are ready, and finds out why they are not.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for AWS: needs the clock, and jitter for its polls"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use crate::{
    cloud::{Activity, CallError, Cloud, passes},
    execute::{Stop, Stopped},
    nodes::{self, Node, Nodes},
    plan::GroupChange,
    progress::Progress,
};

/// Between two looks; each adds up to half of it as jitter.
pub(crate) const POLL: Duration = Duration::from_secs(2);
/// One observation of all groups serves everybody who waits, so that calls do not grow with groups.
const FRESH: Duration = Duration::from_secs(1);
/// Between two reads of a group's activities while its instances stay the same.
const ACTIVITIES_EVERY: Duration = Duration::from_secs(10);
/// How long IAM may take to make a new instance profile known to EC2.
const PROFILE_GRACE: Duration = Duration::from_secs(120);
/// What a launch may take beyond its hook's time-out: EC2's boot before, ECS's view after.
const LAUNCH_MARGIN: Duration = Duration::from_secs(300);
/// Lines of a console that are worth showing when the agent said nothing.
const CONSOLE_TAIL: usize = 8;
/// By these words the agent's own lines on the console are known.
const LAST_WORDS: &str = "fleet-agent: ";

/// Sees all groups of one cluster.
pub(crate) struct Watch<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) cluster: String,
    /// Auto Scaling groups with the time-out of their launching hook.
    pub(crate) groups: BTreeMap<String, Duration>,
    /// Those whose first nodes this run starts: only they are told to want less on a failure.
    opened: BTreeSet<String>,
    pub(crate) progress: &'a Progress<'a>,
    pub(crate) stop: Stop,
    latest: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Nodes>>)>>,
    /// Ids of activities that are not this run's.
    earlier: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// When a group's activities were last read, and which instances it had then.
    looked: Mutex<BTreeMap<String, (Instant, Vec<String>)>>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        cloud: &'a Cloud,
        cluster: &str,
        groups: BTreeMap<String, Duration>,
        opened: BTreeSet<String>,
        progress: &'a Progress<'a>,
        stop: Stop,
    ) -> Self {
        Self {
            cloud,
            cluster: cluster.to_owned(),
            groups,
            opened,
            progress,
            stop,
            latest: tokio::sync::Mutex::default(),
            earlier: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    /// Notes what a group did before we asked anything of it: its old failures are not ours.
    pub(crate) async fn remember(&self, group: &str) -> Result<()> {
        if lock(&self.earlier).contains_key(group) {
            return Ok(());
        }
        let activities = self.cloud.autoscaling.activities(group).await?;
        let ids = activities.into_iter().map(|activity| activity.id).collect();
        lock(&self.earlier).insert(group.to_owned(), ids);
        Ok(())
    }

    /// A group that was made just now has done nothing yet.
    pub(crate) fn is_new(&self, group: &str) {
        lock(&self.earlier).insert(group.to_owned(), BTreeSet::new());
    }

    /// Waits until `wanted` nodes of a group are ready; all that the group itself wants if `None`.
    ///
    /// # Errors
    /// The first node that was given up, or the deadline, with what is known about the cause. A
    /// group that this run started then wants no more nodes than are ready, so that no launch is
    /// repeated for ever; one that was at work before is left alone.
    pub(crate) async fn ready(&self, group: &str, wanted: Option<u32>) -> Result<()> {
        match self.wait(group, wanted).await {
            Ok(()) => {
                self.progress.settled(group);
                Ok(())
            }
            // A call that failed says nothing of the nodes.
            Err(error)
                if self.stop.is_requested()
                    || !self.opened.contains(group)
                    || error.is::<CallError>() =>
            {
                Err(error)
            }
            Err(error) => Err(self.settle(group, error).await),
        }
    }

    async fn wait(&self, group: &str, wanted: Option<u32>) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.look(group, wanted, began).await {
                Ok(true) => return Ok(()),
                Err(error) if passes(&error) && began.elapsed() < self.launch_limit(group) => {
                    self.progress.live(group, &format!("waits: {error:#}"));
                }
                other => drop(other?),
            }
            self.pause(POLL).await?;
        }
    }

    /// Whether they are ready; one call after another, for [`Watch::wait`].
    async fn look(&self, group: &str, wanted: Option<u32>, began: Instant) -> Result<bool> {
        let all = self.observe(began).await?;
        let Some(nodes) = all.iter().find(|nodes| nodes.group == group) else {
            bail!("auto scaling group {group} is gone: somebody deleted it meanwhile");
        };
        // Of all that the group wants, those that were emptied on purpose do not get ready.
        let (wanted, set_aside) = match wanted {
            Some(wanted) => (wanted, 0),
            None => (nodes.wanted, nodes.set_aside()),
        };
        self.progress.live(group, &nodes.progress(wanted));
        if nodes.has_ready(wanted.saturating_sub(set_aside)) {
            self.tell_set_aside(nodes);
            return Ok(true);
        }

        self.remember(group).await?;
        if let Some(why) = self.given_up(nodes, began.elapsed()).await? {
            bail!(why);
        }
        if began.elapsed() >= self.launch_limit(group) {
            return Err(self.too_late(nodes, wanted).await);
        }
        Ok(false)
    }

    /// A group's nodes as they are now; none if the group is gone.
    ///
    /// # Errors
    /// A read that failed.
    pub(crate) async fn nodes(&self, group: &str) -> Result<Option<Nodes>> {
        let all = self.observe(Instant::now()).await?;
        Ok(all.iter().find(|nodes| nodes.group == group).cloned())
    }

    /// Says which nodes were not waited for.
    fn tell_set_aside(&self, nodes: &Nodes) {
        for node in nodes.nodes.iter().filter(|node| node.is_set_aside()) {
            self.progress.note(&format!(
                "{}: {} is drained on purpose, and was not waited for",
                nodes.group, node.instance.id
            ));
        }
    }

    /// One poll interval, cut short by a stop.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) async fn pause(&self, interval: Duration) -> Result<()> {
        Ok(pause(&self.stop, interval).await?)
    }

    /// All groups' nodes, read anew unless somebody just did; never as they were before `since`.
    async fn observe(&self, since: Instant) -> Result<Arc<Vec<Nodes>>> {
        let mut latest = self.latest.lock().await;
        if let Some((at, nodes)) = &*latest
            && at.elapsed() < FRESH
            && *at >= since
        {
            return Ok(Arc::clone(nodes));
        }
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        let at = Instant::now();
        let nodes = Arc::new(nodes::observe(self.cloud, &self.cluster, &groups).await?);
        *latest = Some((at, Arc::clone(&nodes)));
        Ok(nodes)
    }

    /// What a new node of the group gets to be ready.
    pub(crate) fn launch_limit(&self, group: &str) -> Duration {
        self.groups.get(group).copied().unwrap_or_default() + LAUNCH_MARGIN
    }

    /// Why a node was given up since [`Watch::remember`], if one was and that does not pass by itself.
    /// It asks when an instance has come, gone or moved on, and otherwise now and then.
    ///
    /// # Errors
    /// A read that failed.
    pub(crate) async fn given_up(&self, nodes: &Nodes, waited: Duration) -> Result<Option<String>> {
        let group = &nodes.group;
        let ids: Vec<String> = nodes.nodes.iter().map(identity).collect();
        let is_known =
            |(at, seen): &(Instant, Vec<String>)| *seen == ids && at.elapsed() < ACTIVITIES_EVERY;
        if lock(&self.looked).get(group).is_some_and(is_known) {
            return Ok(None);
        }
        for activity in self.failures(group).await? {
            if may_pass(&activity, waited) {
                self.progress
                    .live(&format!("{group} launches"), &activity.message);
                continue;
            }
            let mut text = activity.message.clone();
            if let Some(instance) = activity.instance_id() {
                let _ = write!(text, "\n{}", self.last_words(instance).await);
            }
            return Ok(Some(format!("a node of {group} was given up: {text}")));
        }
        lock(&self.looked).insert(group.clone(), (Instant::now(), ids));
        Ok(None)
    }

    /// What went wrong since [`Watch::remember`], first things first.
    async fn failures(&self, group: &str) -> Result<Vec<Activity>> {
        let activities = self.cloud.autoscaling.activities(group).await?;
        let earlier = lock(&self.earlier);
        let known = earlier.get(group);
        let is_ours = |activity: &Activity| known.is_none_or(|known| !known.contains(&activity.id));
        // AWS lists the newest first.
        let activities = activities.into_iter().rev();
        Ok(activities
            .filter(|activity| activity.has_failed && activity.is_launch() && is_ours(activity))
            .collect())
    }

    /// What is missing, after too long a wait.
    pub(crate) async fn too_late(&self, nodes: &Nodes, wanted: u32) -> anyhow::Error {
        let mut text = format!(
            "{} did not get ready in time: {}",
            nodes.group,
            nodes.progress(wanted)
        );
        match self.failures(&nodes.group).await {
            Ok(failures) => {
                if let Some(first) = failures.first() {
                    let _ = write!(text, "\nfirst failure: {}", first.message);
                } else if nodes.nodes.is_empty() {
                    text.push_str("\nno instance was launched: see the group's activities");
                }
            }
            Err(error) => {
                let _ = write!(text, "\n(its activities could not be read: {error:#})");
            }
        }
        let missing = || {
            let wanted = nodes.nodes.iter().filter(|node| node.is_wanted());
            wanted.filter(|node| !node.is_ready())
        };
        for node in missing() {
            let _ = write!(text, "\n{}: {}", node.instance.id, node.lacks());
        }
        if let Some(node) = missing().next() {
            let _ = write!(text, "\n{}", self.last_words(&node.instance.id).await);
        }
        anyhow!(text)
    }

    /// What the agent wrote on the console, or else how the console ends.
    async fn last_words(&self, instance: &str) -> String {
        let console = match self.cloud.ec2.console(instance).await {
            Ok(console) => console,
            Err(error) => return format!("(its console could not be read: {error})"),
        };
        let lines = last_words(&console);
        if lines.is_empty() {
            return format!("(the console of {instance} is empty)");
        }
        let mut text = format!("last words of {instance}:");
        for line in lines {
            let _ = write!(text, "\n  {line}");
        }
        text
    }

    /// Lets the group want no more than it has, and says so.
    async fn settle(&self, group: &str, error: anyhow::Error) -> anyhow::Error {
        let now = nodes::observe(self.cloud, &self.cluster, &[group.to_owned()]).await;
        let nodes = match now {
            Ok(mut all) if !all.is_empty() => all.remove(0),
            Ok(_) => return error,
            Err(why) => {
                return anyhow!("{error:#}\n(and {group} could not be stopped launching: {why})");
            }
        };
        let ready = u32::try_from(nodes.count(Node::is_ready)).unwrap_or(u32::MAX);
        let wanted = ready.max(nodes.min);
        if wanted >= nodes.wanted {
            return error;
        }
        let change = GroupChange {
            desired: Some(wanted),
            ..GroupChange::default()
        };
        match self.cloud.autoscaling.update(group, &change, None).await {
            Ok(()) => anyhow!(
                "{error:#}\nthe desired capacity of {group} was set from {} to {wanted}, what is \
                 ready, so that it does not launch more of the same",
                nodes.wanted
            ),
            Err(why) => {
                anyhow!("{error:#}\n(and {group} could not be stopped launching: {why})")
            }
        }
    }
}

/// What it guards is whole after every write.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One poll interval with jitter, cut short by a stop.
///
/// # Errors
/// [`Stopped`].
pub(crate) async fn pause(stop: &Stop, interval: Duration) -> Result<(), Stopped> {
    let jitter = interval.mul_f32(0.5 * fastrand::f32());
    tokio::select! {
        // Cancel-safe: nothing but time passes in either arm.
        () = tokio::time::sleep(interval + jitter) => Ok(()),
        () = stop.requested() => Err(Stopped),
    }
}

/// Changes whenever an instance comes, goes or moves on.
fn identity(node: &Node) -> String {
    format!("{} {}", node.instance.id, node.instance.state)
}

/// Whether Auto Scaling will get over it by itself: IAM is slow to make profiles known, and
/// another zone may have what this one lacks.
fn may_pass(activity: &Activity, waited: Duration) -> bool {
    let message = activity.message.to_lowercase();
    (message.contains("instance profile") && waited < PROFILE_GRACE)
        || message.contains("insufficient")
        || message.contains("unfulfillable")
        || message.contains("vcpu limit")
        || message.contains("do not have sufficient")
}

fn last_words(console: &str) -> Vec<&str> {
    let lines = || {
        console
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let ours: Vec<&str> = lines()
        .filter_map(|line| line.find(LAST_WORDS).map(|at| &line[at..]))
        .collect();
    let mut last = if ours.is_empty() {
        lines().collect()
    } else {
        ours
    };
    last.split_off(last.len().saturating_sub(CONSOLE_TAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_lines_come_first() {
        let console = "[  1.2] systemd[1]: up\n[ 9.1] fleet-agent: cannot reach ECS\nlogin:\n";
        assert_eq!(last_words(console), ["fleet-agent: cannot reach ECS"]);
        assert_eq!(last_words("a\n\nb\n"), ["a", "b"]);
        let long: String = (0..50).map(|n| format!("line {n}\n")).collect();
        assert_eq!(last_words(&long).first(), Some(&"line 42"));
    }

    #[test]
    fn only_what_passes_by_itself_is_waited_for() {
        let failed = |message: &str| Activity {
            id: "1".into(),
            description: "Launching a new EC2 instance: i-0ab".into(),
            message: message.into(),
            has_failed: true,
        };
        let profile = failed("Invalid IamInstanceProfile: The iam instance profile is invalid");
        assert!(may_pass(&profile, Duration::from_secs(10)));
        assert!(!may_pass(&profile, Duration::from_secs(121)));
        let abandoned = failed("Instance failed to complete user's Lifecycle Action: abandoned");
        assert!(!may_pass(&abandoned, Duration::ZERO));
    }
}
