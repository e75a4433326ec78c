//! Carries out single steps: the calls, and the waits that AWS's eventual consistency asks for.
//!
//! Every wait has a limit, a typed reason and a line on the screen; a stop cuts it short. A step
//! that finds its work done already, by itself in an earlier attempt, is done.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

mod alarms;
mod auto_scaling;
mod bucket;
mod ec2;
mod ecs;
mod empty;
mod iam;
mod revision;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use backon::{BackoffBuilder, ExponentialBuilder};
use fleet_agent_config::names::tag;

use crate::{
    cloud::{CallError, Cloud, Kind, passes},
    execute::{Event, Runner},
    inventory::{GroupTag, Tags},
    plan::{AutoScalingStep, ParameterStep, Step, Taggable},
    progress::Progress,
    spec::Direction,
    watch::{POLL, Watch},
};

/// IAM's changes reach other services within seconds; peers wait this long at most.
const IAM_LIMIT: Duration = Duration::from_secs(120);
/// Auto Scaling ends its activities, and EC2 frees network interfaces, in minutes.
const RELEASE_LIMIT: Duration = Duration::from_secs(600);
/// Many waits are short: looking again soon costs a call or two.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// First and longest pause between two tries.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Runs steps against AWS.
pub(crate) struct Apply<'a> {
    cloud: &'a Cloud,
    watch: &'a Watch<'a>,
    progress: &'a Progress<'a>,
    made: Mutex<Made>,
    /// When the next capacity-provider write may start.
    provider_write: tokio::sync::Mutex<Option<Instant>>,
}

/// What AWS drew for us in this run.
#[derive(Debug, Default)]
struct Made {
    /// By name.
    clusters: BTreeSet<String>,
    /// Ids by name.
    security_groups: BTreeMap<String, String>,
    /// Versions by launch template.
    versions: BTreeMap<String, i64>,
    /// ARNs of scaling policies by Auto Scaling group.
    scaling_policies: BTreeMap<(String, Direction), String>,
}

impl Runner for Apply<'_> {
    async fn run(&self, step: &Step) -> Result<()> {
        match step {
            Step::Iam(step) => self.iam(step).await,
            Step::Ec2(step) => self.ec2(step).await,
            Step::AutoScaling(step) => self.auto_scaling(step).await,
            Step::Ecs(step) => self.ecs(step).await,
            Step::Parameter(step) => self.parameter(step).await,
            Step::Alarm(step) => self.alarm(step).await,
            Step::Bucket(step) => self.bucket(step).await,
            Step::Tag { resource, tags } => self.tag(resource, tags).await,
        }
    }

    fn progress(&self, event: Event<'_>) {
        match event {
            Event::Started(step) => {
                if matches!(step, Step::AutoScaling(AutoScalingStep::Empty { .. })) {
                    self.progress.note(&step.title());
                }
                self.progress.started(&step.title());
            }
            Event::Done(step) => self.progress.done(&step.title()),
        }
    }
}

impl<'a> Apply<'a> {
    pub(crate) fn new(cloud: &'a Cloud, watch: &'a Watch<'a>, progress: &'a Progress<'a>) -> Self {
        Self {
            cloud,
            watch,
            progress,
            made: Mutex::default(),
            provider_write: tokio::sync::Mutex::default(),
        }
    }

    async fn parameter(&self, step: &ParameterStep) -> Result<()> {
        let ssm = &self.cloud.ssm;
        match step {
            ParameterStep::Put {
                name,
                value,
                tags: Some(tags),
            } => match ssm.create(name, value, tags).await {
                Err(error) if error.kind == Kind::AlreadyExists => {
                    is_ours(error, tags, ssm.tags(name).await?)?;
                    Ok(ssm.overwrite(name, value).await?)
                }
                other => Ok(other?),
            },
            ParameterStep::Put {
                name,
                value,
                tags: None,
            } => Ok(ssm.overwrite(name, value).await?),
            ParameterStep::Delete { name } => Ok(ssm.delete(name).await?),
        }
    }

    async fn tag(&self, resource: &Taggable, tags: &BTreeMap<String, GroupTag>) -> Result<()> {
        let plain = plain(tags);
        match resource {
            Taggable::Ecs(arn) => self.cloud.ecs.tag(arn, &plain).await?,
            Taggable::Role(name) => self.cloud.iam.tag_role(name, &plain).await?,
            Taggable::InstanceProfile(name) => {
                self.cloud.iam.tag_instance_profile(name, &plain).await?;
            }
            Taggable::SecurityGroup(id) => self.cloud.ec2.tag(&[id], &plain).await?,
            Taggable::LaunchTemplate(name) => {
                self.cloud.ec2.tag_launch_template(name, &plain).await?;
            }
            Taggable::AutoScalingGroup(name) => self.cloud.autoscaling.tag(name, tags).await?,
            Taggable::Parameter(name) => self.cloud.ssm.tag(name, &plain).await?,
            Taggable::Alarm(arn) => self.cloud.cloudwatch.tag(arn, &plain).await?,
            Taggable::Bucket(name) => self.cloud.s3.tag(name, &plain).await?,
        }
        Ok(())
    }

    /// Asks until the answer is yes.
    async fn until(
        &self,
        limit: Duration,
        what: &str,
        is_done: impl AsyncFn() -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        let mut interval = FIRST_POLL;
        loop {
            let story = match is_done().await {
                Ok(true) => break,
                Ok(false) => "waiting for AWS".to_owned(),
                Err(error) if passes(&error) => format!("waits: {error:#}"),
                Err(error) => return Err(error),
            };
            ensure!(
                began.elapsed() < limit,
                "{what} is not done after {} minutes: look at it in the console, then run this \
                 again",
                limit.as_secs() / 60
            );
            self.progress.live(what, &story);
            self.watch.pause(interval).await?;
            interval = (interval * 2).min(POLL);
        }
        self.progress.settled(what);
        Ok(())
    }

    /// Calls until it works, or fails for good.
    async fn patiently<T, F>(
        &self,
        title: String,
        limit: Duration,
        passes: impl Fn(&CallError) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        Ok(self.tried(title, limit, passes, call).await??)
    }

    /// Calls again while the error is one that passes, for `limit` in all. The outer error is a
    /// stop that was asked for.
    async fn tried<T, F>(
        &self,
        title: String,
        limit: Duration,
        passes: impl Fn(&CallError) -> bool,
        call: impl Fn() -> F,
    ) -> Result<Result<T, CallError>>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (first, longest) = RETRY_PAUSE;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_total_delay(Some(limit))
            .build();
        for pause in pauses {
            match call().await {
                Err(error) if passes(&error) => {
                    self.progress
                        .live(&title, &format!("waits: {}", error.message));
                    self.watch.pause(pause).await?;
                }
                other => {
                    self.progress.settled(&title);
                    return Ok(other);
                }
            }
        }
        Ok(call().await)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resource that exists already is fine if it carries the tags that we were about to give it:
/// then an earlier attempt, whose answer was lost, made it.
fn is_ours(error: CallError, wanted: &Tags, found: Option<Tags>) -> Result<()> {
    let found = found.unwrap_or_default();
    let same = |key: &str| wanted.get(key) == found.get(key);
    if same(tag::OWNER) && same(tag::ENVIRONMENT) && same(tag::GROUP) {
        return Ok(());
    }
    Err(error).context("somebody else just created it, so it is left alone")
}

fn plain(tags: &BTreeMap<String, GroupTag>) -> Tags {
    tags.iter()
        .map(|(key, tag)| (key.clone(), tag.value.clone()))
        .collect()
}

fn is_in_use(error: &CallError) -> bool {
    error.kind == Kind::InUse
}
