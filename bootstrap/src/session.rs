//! What every command that meets AWS begins with: the file, the account, and a plan between them.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::{Either, select};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::OnceCell,
};

use crate::{
    apply::Apply,
    cloud::Cloud,
    collect::{self, Reading},
    desired::{self, Desired, Transition},
    execute::{self, Stop},
    inventory::{Group, Inventory},
    nodes::{self, Nodes},
    output::{Output, dim, green, red, yellow},
    plan::{self, Goal, Mark, Plan},
    preflight,
    progress::Progress,
    spec,
    watch::{POLL, Watch},
};

/// Reads of IAM and EC2 show a write within seconds, but not at once.
const VERIFY_LIMIT: Duration = Duration::from_secs(30);

/// What a failed read means.
const UNREAD: &str = "failed to read what exists, so nothing was changed";

/// One environment of one file, in one account.
pub(crate) struct Session {
    pub(crate) cloud: Cloud,
    pub(crate) desired: Desired,
    /// The file's, if it names one.
    expected_account: Option<String>,
    account: OnceCell<String>,
    /// Rounds of parallel reads of the last plan.
    rounds: Cell<usize>,
    reading: Cell<Reading>,
}

/// What is not as the file says.
#[derive(Debug)]
pub(crate) struct Drift {
    /// Lines of the plan, or what would keep `up` from bringing it there.
    pub(crate) lines: Vec<String>,
    /// Groups that are not in the file any more.
    pub(crate) removed: Vec<String>,
}

/// How a plan was made, for its header.
#[derive(Debug, Serialize)]
pub(crate) struct Header<'a> {
    fleet: &'a str,
    environment: &'a str,
    owner: &'a str,
    account: &'a str,
    region: &'a str,
    /// Rounds of parallel reads.
    rounds: usize,
    /// Calls to AWS so far.
    calls: usize,
}

impl Session {
    /// Reads the file. AWS is asked who we are beside the first read, hence before every write.
    ///
    /// # Errors
    /// Everything wrong with the file.
    pub(crate) async fn open(file: &Path, environment: &str, out: &Output) -> Result<Self> {
        let spec = spec::load(file, environment)?;
        for warning in &spec.warnings {
            out.note(format!(
                "{} {}:{}: {}: {}",
                yellow("warning:"),
                spec.file,
                warning.line,
                warning.key,
                warning.message
            ));
        }
        let desired = desired::build(&spec)?;
        let cloud = Cloud::connect(&desired.identity.region).await;
        Ok(Self {
            cloud,
            desired,
            expected_account: spec.account,
            account: OnceCell::new(),
            rounds: Cell::new(collect::ROUNDS),
            reading: Cell::new(Reading::First),
        })
    }

    /// From here on plans take the newest images, also for groups that have one.
    pub(crate) fn take_newest_images(&mut self) {
        for group in &mut self.desired.groups {
            group.launch_template.newest_image = true;
        }
    }

    /// Whether they do.
    pub(crate) fn takes_newest_images(&self) -> bool {
        let mut groups = self.desired.groups.iter();
        groups.any(|group| group.launch_template.newest_image)
    }

    /// Reads what exists and plans the way to `goal`; before a launch it asks what that depends on.
    ///
    /// # Errors
    /// A read that failed, or everything that stands in the way.
    pub(crate) async fn plan(&self, goal: Goal) -> Result<Plan> {
        let named = self.named(goal).await?;
        // A bare start knows already what it would launch.
        let early = async {
            let is_bare = goal == Goal::Up && named.is_bare();
            let plan = is_bare.then(|| plan::plan(&self.desired, &named, goal));
            let templates = plan?.ok()?.templates();
            Some(preflight::ask(&self.cloud, &self.desired, &named, &templates).await)
        };
        let (inventory, early) = tokio::join!(self.detailed(goal, named.clone()), early);
        let inventory = inventory?;
        let (mut plan, mut in_the_way) = match plan::plan(&self.desired, &inventory, goal) {
            Ok(plan) => (plan, Vec::new()),
            Err(conflicts) => (
                Plan::empty(goal),
                conflicts.iter().map(ToString::to_string).collect(),
            ),
        };
        if let Some((file, sha256)) = plan.sends() {
            in_the_way.extend(spec::pinned_bytes(file, sha256).err());
        }
        let mut rounds = collect::ROUNDS;
        if goal == Goal::Up && (plan.launches() || !in_the_way.is_empty()) {
            let surroundings = match early {
                Some(surroundings) => surroundings,
                None => {
                    rounds += 1;
                    let templates = plan.templates();
                    preflight::ask(&self.cloud, &self.desired, &inventory, &templates).await
                }
            };
            let findings = preflight::findings(&self.desired, &inventory, &surroundings);
            let problems = findings.iter().filter(|finding| finding.is_problem);
            in_the_way.extend(problems.map(ToString::to_string));
            plan.preflight = Some(findings);
        }
        let has_alarms = |group: &Group| !group.alarms.is_empty();
        // Their tags are read once they are known.
        rounds += usize::from(inventory.groups.values().any(has_alarms));
        self.rounds.set(rounds);
        if in_the_way.is_empty() {
            return Ok(plan);
        }
        bail!(
            "nothing was changed, since this stands in the way:\n  {}",
            in_the_way.join("\n  ")
        )
    }

    /// What is not as the file says.
    ///
    /// # Errors
    /// A read that failed.
    pub(crate) async fn drift(&self) -> Result<Drift> {
        let named = self.named(Goal::Up).await?;
        let inventory = self.detailed(Goal::Up, named).await?;
        let lines = match plan::plan(&self.desired, &inventory, Goal::Up) {
            Ok(plan) => plan.differences(),
            Err(conflicts) => conflicts.iter().map(|one| format!("  {one}")).collect(),
        };
        let removed = inventory.removed.into_iter().map(|group| group.name);
        Ok(Drift {
            lines,
            removed: removed.collect(),
        })
    }

    /// The nodes of those of the groups that are there.
    ///
    /// # Errors
    /// A read that failed.
    pub(crate) async fn nodes(
        &self,
        groups: impl IntoIterator<Item = &desired::Group>,
    ) -> Result<Vec<Nodes>> {
        let groups = groups.into_iter();
        let names: Vec<String> = groups
            .map(|group| group.auto_scaling_group.name.clone())
            .collect();
        let cluster = &self.desired.cluster.name;
        self.identified(async { Ok(nodes::observe(&self.cloud, cluster, &names).await?) })
            .await
    }

    async fn named(&self, goal: Goal) -> Result<Inventory> {
        let read = collect::named(&self.cloud, &self.desired, goal, self.reading.get());
        let read = async { read.await.context(UNREAD) };
        let mut inventory = self.identified(read).await?;
        self.account().clone_into(&mut inventory.account);
        Ok(inventory)
    }

    async fn detailed(&self, goal: Goal, named: Inventory) -> Result<Inventory> {
        let (cloud, reading) = (&self.cloud, self.reading.get());
        let read = collect::detailed(cloud, &self.desired, goal, reading, named).await;
        read.context(UNREAD)
    }

    /// Reads something, and asks beside it whose account this is, unless that is known.
    ///
    /// # Errors
    /// No credentials, no answer, another account than the file's: that comes before what the read says,
    /// since it explains it. Those of the read.
    pub(crate) async fn identified<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        let identify = self
            .account
            .get_or_try_init(|| collect::identify(&self.cloud, self.expected_account.as_deref()));
        // Cancel-safe: whichever is second is waited for.
        match select(pin!(identify), pin!(read)).await {
            Either::Left((identified, read)) => {
                let _ = identified?;
                read.await
            }
            Either::Right((read, identify)) => {
                let _ = identify.await?;
                read
            }
        }
    }

    /// Known since the first read.
    pub(crate) fn account(&self) -> &str {
        self.account.get().map_or("", String::as_str)
    }

    pub(crate) fn header(&self) -> Header<'_> {
        let identity = &self.desired.identity;
        Header {
            fleet: &identity.fleet,
            environment: &identity.environment,
            owner: &identity.owner,
            account: self.account(),
            region: &identity.region,
            rounds: self.rounds.get(),
            calls: self.cloud.calls(),
        }
    }

    /// Prints a plan for people.
    pub(crate) fn show(&self, plan: &Plan, out: &Output) {
        let header = self.header();
        out.line(format!(
            "fleet {} {}  account {}  {}  {}",
            header.fleet,
            header.environment,
            header.account,
            header.region,
            dim(format!(
                "live state read in {} rounds / {} calls",
                header.rounds, header.calls
            ))
        ));
        let width = plan.name_width();
        for line in &plan.lines {
            let text = line.render(width);
            out.line(match line.mark {
                Mark::Create => green(text),
                Mark::Change | Mark::Correct => yellow(text),
                Mark::Delete => red(text),
                Mark::Keep | Mark::Adopted => dim(text),
            });
        }
        out.line(format!("Plan: {}.", plan.totals()));
        for finding in plan.preflight.iter().flatten() {
            out.line(format!("{} {finding}", yellow("preflight:")));
        }
        let rolls: Vec<String> = plan
            .rolls()
            .map(|(group, nodes)| format!("{group} {nodes}"))
            .collect();
        if !rolls.is_empty() {
            out.line(format!(
                "Nodes to roll: {}: run `fleet-bootstrap roll {}`.",
                rolls.join(", "),
                header.environment
            ));
        }
    }

    /// A view of all groups, for waiting while `plan` is carried out.
    pub(crate) fn watch<'a>(
        &'a self,
        plan: Option<&Plan>,
        progress: &'a Progress<'a>,
        stop: Stop,
    ) -> Watch<'a> {
        let groups: BTreeMap<String, Duration> = self
            .desired
            .groups
            .iter()
            .map(|group| {
                let asg = &group.auto_scaling_group;
                let launching = asg
                    .hooks
                    .iter()
                    .find(|hook| hook.transition == Transition::Launching);
                let seconds = launching.map_or(0, |hook| hook.timeout_seconds);
                (asg.name.clone(), Duration::from_secs(seconds.into()))
            })
            .collect();
        let cluster = &self.desired.cluster.name;
        let opened = plan.map(Plan::opened).unwrap_or_default();
        Watch::new(&self.cloud, cluster, groups, opened, progress, stop)
    }

    /// Carries out a plan.
    ///
    /// # Errors
    /// The steps that failed, and how to go on.
    pub(crate) async fn execute(
        &self,
        plan: &Plan,
        watch: &Watch<'_>,
        progress: &Progress<'_>,
    ) -> Result<()> {
        progress.begin(plan.steps.len());
        self.reading.set(Reading::Again);
        let apply = Apply::new(&self.cloud, watch, progress);
        let result = execute::execute(plan, &apply, &watch.stop).await;
        result.map_err(|halt| anyhow!("{halt}\n{}", self.how_to_go_on(plan.goal)))
    }

    pub(crate) fn how_to_go_on(&self, goal: Goal) -> String {
        let environment = &self.desired.identity.environment;
        match goal {
            Goal::Up => format!(
                "run `fleet-bootstrap up {environment}` again to go on, or `fleet-bootstrap down \
                 {environment}` to remove what there is"
            ),
            Goal::Down => format!("run `fleet-bootstrap down {environment}` again to go on"),
        }
    }

    /// Reads everything again: a plan must be empty within [`VERIFY_LIMIT`].
    ///
    /// # Errors
    /// What is not as it should be.
    pub(crate) async fn verify(&self, goal: Goal, watch: &Watch<'_>) -> Result<()> {
        let began = Instant::now();
        let pause = async || {
            watch.pause(POLL).await?;
            Ok(began.elapsed())
        };
        let plan = async || self.plan(goal).await;
        let Some(rest) = settled(plan, pause).await? else {
            return Ok(());
        };
        bail!(
            "everything was done, and yet this is left to do: somebody may be changing it \
             meanwhile\n{}\n{}",
            rest.differences().join("\n"),
            self.how_to_go_on(goal)
        )
    }
}

/// Plans until nothing is left to do, and returns what is left at the limit; `pause` says how long
/// it has been in all. What stands in the way
/// may pass as well: right after a delete, reads still show what is leaving.
async fn settled(
    plan: impl AsyncFn() -> Result<Plan>,
    pause: impl AsyncFn() -> Result<Duration>,
) -> Result<Option<Plan>> {
    let mut waited = Duration::ZERO;
    loop {
        let is_late = waited >= VERIFY_LIMIT;
        match plan().await {
            Ok(rest) if rest.steps.is_empty() => return Ok(None),
            Ok(rest) if is_late => return Ok(Some(rest)),
            Err(error) if is_late => return Err(error),
            Ok(_) | Err(_) => waited = pause().await?,
        }
    }
}

/// Runs `work` so that the first interrupt lets what runs finish and the second one leaves.
///
/// # Errors
/// Those of `work`, and the second interrupt.
pub(crate) async fn interruptible<T>(
    out: &Output,
    work: impl AsyncFnOnce(Stop) -> Result<T>,
) -> Result<T> {
    let (sender, stop) = Stop::new();
    let mut work = pin!(work(stop));
    tokio::select! {
        // Cancel-safe: `work` is only borrowed and goes on below.
        result = &mut work => return result,
        interrupted = interrupt() => interrupted?,
    }
    out.note("stopping: what runs is finished first; interrupt again to leave at once");
    sender.send_replace(true);
    tokio::select! {
        // Not cancel-safe, and meant so: calls in flight may or may not have had their effect.
        result = &mut work => result,
        interrupted = interrupt() => {
            interrupted?;
            bail!("left at once, with calls in flight: run the same command again to go on")
        }
    }
}

async fn interrupt() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        // Cancel-safe: a signal that arrives later is a new one.
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::plan::{IamStep, Planned, Step};

    fn plan(is_empty: bool) -> Plan {
        let step = Step::Iam(IamStep::DeleteRole { name: "r".into() });
        let left = Planned {
            step,
            after: vec![],
        };
        Plan {
            steps: if is_empty { vec![] } else { vec![left] },
            ..Plan::empty(Goal::Down)
        }
    }

    #[tokio::test]
    async fn reads_that_lag_are_read_again() {
        let looks = Cell::new(0);
        let late = async || {
            looks.set(looks.get() + 1);
            match looks.get() {
                1 => Err(anyhow!("is still being deleted")),
                looks => Ok(plan(looks == 3)),
            }
        };
        let pause = async || Ok(POLL);
        assert_eq!(settled(late, pause).await.expect("reads"), None);
    }

    #[tokio::test]
    async fn what_stays_is_reported_after_the_limit() {
        let waited = Cell::new(Duration::ZERO);
        let pause = async || {
            waited.set(waited.get() + POLL);
            Ok(waited.get())
        };
        let never = async || Ok(plan(false));
        assert!(settled(never, pause).await.expect("reads").is_some());
        assert_eq!(waited.get(), VERIFY_LIMIT);
    }
}
