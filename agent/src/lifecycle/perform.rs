//! Does one piece of work through the clients. Decides nothing.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use fleet_agent_config::{
    Applied, Settings, ecs,
    names::{attribute, tag},
};
use tokio::sync::OnceCell;

use super::event::{
    Attributes, ConfigWritten, Healed, Outcome, Scheduled, SpotNews, TOLD_APART, Tasks, Work,
};
use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, Verb},
        disk::Disk,
        docker::{Docker, TaskContainer},
        ecs::Ecs,
        imds::{Identity, Imds},
        introspection::Introspection,
        systemd::{Heal, Systemd, heal},
    },
    clock::Clock,
    ecs_config::render::layers,
    journal::{event::Entry, sink},
    moment::Moment,
    sidecars::{
        execute::{converge, flush_and_stop},
        plan::{Desired, Failed},
    },
};

/// What work needs beside the clients.
#[derive(Debug)]
pub(crate) struct Context<C> {
    pub(crate) clients: C,
    pub(crate) settings: Settings,
    /// The settings' sidecars.
    pub(crate) sidecars: Vec<Desired>,
    /// Of these, what did not come up.
    pub(crate) failed: RefCell<Failed>,
    /// Where the settings come from: `fleet.config`.
    pub(crate) applied: Applied,
    /// What ECS gives a task's container to end.
    pub(crate) container_stop: Duration,
    pub(crate) clock: Clock,
    pub(crate) identity: OnceCell<Identity>,
    /// Spreads this node's retries, refreshes and heartbeats: any number of its own.
    pub(crate) seed: u64,
}

impl<C: Clients> Context<C> {
    pub(super) async fn perform(&self, work: Work) -> Result<Outcome> {
        match self.attempt(work).await {
            Err(error) if self.settings.node.instance_tag && is_denial(&error) => {
                Err(error.context(TOLD_APART))
            }
            other => other,
        }
    }

    async fn attempt(&self, work: Work) -> Result<Outcome> {
        let clients = &self.clients;
        match work {
            Work::Identify => self.identify().await,
            Work::WriteEcsConfig => self.write_ecs_config().await,
            Work::ReadTarget => clients.imds().target().await.map(Outcome::Target),
            Work::ReadSpot => self.read_spot().await,
            Work::ReadMaintenance => self.read_maintenance().await,
            Work::ReadTag => clients.imds().tag(tag::DRAIN).await.map(Outcome::Tag),
            Work::ClearCheckpoint => {
                clients.disk().clear_checkpoint()?;
                Ok(Outcome::CheckpointCleared)
            }
            Work::ConvergeSidecars(scope) => {
                let now = || self.clock.wall();
                let round = converge(clients, &self.sidecars, scope, &self.failed, now).await?;
                Ok(Outcome::Sidecars(round))
            }
            Work::Release => self.release().await,
            Work::ReadEcsAgent => clients
                .introspection()
                .container_instance()
                .await
                .map(Outcome::EcsAgent),
            Work::HealEcs => self.heal().await,
            Work::Describe(arn) => clients.ecs().describe(&arn).await.map(Outcome::Described),
            Work::Publish(arn, attributes) => self.publish(&arn, attributes).await,
            Work::OpenLaunch => {
                self.answer(&self.settings.launch_hook, Verb::Heartbeat)
                    .await
            }
            Work::CompleteLaunch => {
                self.answer(&self.settings.launch_hook, Verb::Continue)
                    .await
            }
            Work::AbandonLaunch => self.answer(&self.settings.launch_hook, Verb::Abandon).await,
            Work::SetDraining(arn) => clients
                .ecs()
                .set_draining(&arn)
                .await
                .map(Outcome::Draining),
            Work::SetActive(arn) => clients.ecs().set_active(&arn).await.map(Outcome::Active),
            Work::ReadGroups(arn) => clients.ecs().task_groups(&arn).await.map(Outcome::Groups),
            Work::StopStandalone(tasks) => self.stop_standalone(&tasks).await,
            Work::CountTasks => Ok(Outcome::Tasks(self.count_tasks().await)),
            Work::ConfirmEmpty(arn) => clients.ecs().live_tasks(&arn).await.map(Outcome::Confirmed),
            Work::ShutGate => self.shut_gate().await,
            Work::StopLeftovers(within) => self.stop_leftovers(within).await,
            Work::StopSidecars(within) => {
                let now = || self.clock.now();
                flush_and_stop(clients.docker(), &self.sidecars, within, now)
                    .await
                    .map(Outcome::SidecarsStopped)
            }
            Work::CompleteDrain => self.answer(&self.settings.drain_hook, Verb::Continue).await,
            Work::ProbeDrain => {
                self.answer(&self.settings.drain_hook, Verb::Heartbeat)
                    .await
            }
            Work::LookAround => {
                let around = clients.ecs().around(&self.settings.group).await;
                around.map(Outcome::Around)
            }
            Work::Condemn => {
                let identity = self.identity.get().context("no identity yet")?;
                let condemned = clients.autoscaling().condemn(&identity.instance).await;
                condemned.map(|()| Outcome::Condemned)
            }
            Work::PowerOff => {
                let off = clients.systemd().power_off().await;
                off.map(|()| Outcome::PoweringOff)
            }
        }
    }

    async fn identify(&self) -> Result<Outcome> {
        let disk = self.clients.disk();
        let found = self.clients.imds().identity().await;
        let boot = disk.boot();
        let saved = boot.as_ref().ok().and_then(|boot| disk.load(boot));
        let identity = match (found, &saved, &boot) {
            (Ok(identity), _, _) => identity,
            // A drain must go on while IMDS is silent. What was saved in this boot is of this machine.
            (Err(_), Some(saved), Ok(boot)) if saved.boot == *boot => {
                saved.identity(&self.settings.region)
            }
            (Err(error), _, _) => return Err(error),
        };
        let boot = boot?;
        let saved = saved.filter(|saved| saved.instance == identity.instance);
        // Set once: an instance's identity does not change.
        let identity = self
            .identity
            .get_or_init(|| async { identity })
            .await
            .clone();
        Ok(Outcome::Identified {
            identity,
            boot,
            released: disk.is_released(),
            saved: saved.map(Box::new),
        })
    }

    async fn read_spot(&self) -> Result<Outcome> {
        let spot = self.clients.imds().spot().await?;
        Ok(Outcome::Spot(SpotNews {
            notice: spot.notice.map(|notice| {
                let at = self.clock.moment_of(notice.time);
                (notice, at)
            }),
            rebalance: spot.rebalance,
        }))
    }

    async fn read_maintenance(&self) -> Result<Outcome> {
        let events = self.clients.imds().maintenance().await?.into_iter();
        let scheduled = events.map(|event| Scheduled {
            starts: self.clock.moment_of(event.starts),
            ends: event.ends.map(|ends| self.clock.moment_of(ends)),
            event,
        });
        Ok(Outcome::Maintenance(scheduled.collect()))
    }

    async fn write_ecs_config(&self) -> Result<Outcome> {
        let disk = self.clients.disk();
        let arn = match self.settings.node.instance_tag {
            true => Some(self.clients.imds().arn().await?),
            false => None,
        };
        if !disk.write_ecs_config(&layers(&self.settings, arn.as_deref()))? {
            return Ok(Outcome::EcsConfig(ConfigWritten::Unchanged));
        }
        let runs = disk.is_released() && {
            let ecs = self.clients.systemd().units().await?.ecs;
            matches!(ecs.active.as_str(), "active" | "activating" | "reloading")
        };
        if runs {
            self.clients.systemd().restart_ecs().await?;
        }
        disk.settled();
        Ok(Outcome::EcsConfig(if runs {
            ConfigWritten::Restarted
        } else {
            ConfigWritten::Changed
        }))
    }

    async fn release(&self) -> Result<Outcome> {
        let now = self.clients.disk().release()?;
        self.clients.systemd().start_ecs().await?;
        Ok(Outcome::Released { now })
    }

    async fn heal(&self) -> Result<Outcome> {
        let systemd = self.clients.systemd();
        Ok(Outcome::Healed(match heal(&systemd.units().await?) {
            Heal::Start(why) => {
                systemd.start_ecs().await?;
                Healed::Started(why)
            }
            Heal::Leave(why) => Healed::Left(why),
        }))
    }

    async fn publish(&self, arn: &str, attributes: Attributes) -> Result<Outcome> {
        let since = self.clock.wall_at(attributes.since);
        let pairs = [
            (attribute::GROUP, self.settings.group.clone()),
            (
                attribute::HEALTH,
                attributes.health.verdict.as_str().to_owned(),
            ),
            (attribute::REASON, attributes.health.reason.to_owned()),
            // Whole seconds: the value is for people and for ranking by age.
            (
                attribute::SINCE,
                since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            ),
            (attribute::INTENT, attributes.intent.to_owned()),
            (attribute::AGENT, crate::VERSION.to_owned()),
            (
                attribute::CONFIG,
                self.applied.with(attributes.settled).to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), legal(&value)));
        let mut pairs = pairs.to_vec();
        pairs.extend(self.given_attributes());
        self.clients.ecs().put_attributes(arn, &pairs).await?;
        Ok(Outcome::Published(attributes))
    }

    /// Those of the settings, which the ECS agent tells only when it registers: a change reaches nodes
    /// that are there already.
    fn given_attributes(&self) -> BTreeMap<String, String> {
        let text = self.settings.ecs.get(ecs::INSTANCE_ATTRIBUTES);
        // Checked when the settings were read.
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    async fn answer(&self, hook: &str, verb: Verb) -> Result<Outcome> {
        let identity = self.identity.get().context("no identity yet")?;
        self.clients
            .autoscaling()
            .answer(hook, &identity.instance, verb)
            .await
            .map(Outcome::Hook)
    }

    async fn count_tasks(&self) -> Tasks {
        let (by_agent, by_docker) = tokio::join!(
            self.clients.introspection().live_tasks(),
            self.clients.docker().task_containers(),
        );
        Tasks {
            by_agent: by_agent.map_err(told),
            by_docker: by_docker
                .map(|containers| by_task(&containers))
                .map_err(told),
        }
    }

    /// ECS must neither be started again nor go on with what it may have begun.
    async fn shut_gate(&self) -> Result<Outcome> {
        // ECS may run also if the gate is shut: the try that shut it may not have come further.
        self.clients.disk().shut()?;
        self.clients.systemd().stop_ecs().await?;
        Ok(Outcome::GateShut)
    }

    /// ecs.service goes first, and stays away: restart policies are not to bring containers back.
    /// Whether it went or not, what is left is stopped, all at the same time.
    async fn stop_leftovers(&self, within: Duration) -> Result<Outcome> {
        let end = self.clock.now() + within;
        let held = async {
            self.clients.disk().shut()?;
            self.clients.systemd().stop_ecs().await
        };
        if let Err(error) = held.await {
            sink::write(&Entry::CallFailed {
                call: "hold the ECS agent while leftovers stop",
                error: told(error),
            });
        }
        self.stop_every_task(end).await
    }

    async fn stop_every_task(&self, end: Moment) -> Result<Outcome> {
        /// For Docker to kill what does not end.
        const KILL: Duration = Duration::from_secs(2);
        let before = self.clients.docker().task_containers().await?;
        let left = end.before(KILL).since(self.clock.now());
        let left = self
            .stop_all(&before, left.min(self.container_stop))
            .await?;
        Ok(Outcome::Leftovers {
            stopped: before.len().saturating_sub(left.len()),
            left: left.len(),
        })
    }

    /// Only these tasks' containers; the ECS agent sees them end and reports the tasks stopped.
    async fn stop_standalone(&self, tasks: &[String]) -> Result<Outcome> {
        let mut before = self.clients.docker().task_containers().await?;
        before.retain(|container| tasks.contains(&container.task));
        let left = self.stop_all(&before, self.container_stop).await?;
        let left = left.intersection(&before).count();
        Ok(Outcome::StandaloneStopped {
            stopped: before.len() - left,
            left,
        })
    }

    /// Stops these at the same time; what runs after that.
    async fn stop_all(
        &self,
        containers: &BTreeSet<TaskContainer>,
        grace: Duration,
    ) -> Result<BTreeSet<TaskContainer>> {
        let docker = self.clients.docker();
        let stops = containers
            .iter()
            .map(|container| docker.stop(&container.id, grace));
        let stopped = futures_util::future::join_all(stops).await;
        for error in stopped.into_iter().filter_map(Result::err) {
            sink::write(&Entry::CallFailed {
                call: "stop a task's container",
                error: told(error),
            });
        }
        docker.task_containers().await
    }
}

/// The longest that `work` may take; the clients' own bounds are shorter, this one catches what
/// they miss.
pub(super) fn bound(work: &Work, container_stop: Duration) -> Duration {
    use super::machine::READS;
    const USUAL: Duration = Duration::from_secs(90);
    const PULLS: Duration = Duration::from_secs(1_800);
    const MARGIN: Duration = Duration::from_secs(30);
    const LISTS: Duration = Duration::from_secs(120);
    match work {
        Work::ConvergeSidecars(_) => PULLS,
        Work::LookAround => READS,
        // Both lists of containers may take docker's whole time for one.
        Work::StopLeftovers(within) => *within + LISTS + MARGIN,
        Work::StopStandalone(_) => container_stop + LISTS + MARGIN,
        Work::StopSidecars(within) => *within + LISTS + MARGIN,
        Work::Identify
        | Work::WriteEcsConfig
        | Work::ReadTarget
        | Work::ReadSpot
        | Work::ReadMaintenance
        | Work::ReadTag
        | Work::ClearCheckpoint
        | Work::SetActive(_)
        | Work::ReadGroups(_)
        | Work::Release
        | Work::ReadEcsAgent
        | Work::HealEcs
        | Work::Describe(_)
        | Work::Publish(..)
        | Work::OpenLaunch
        | Work::CompleteLaunch
        | Work::AbandonLaunch
        | Work::SetDraining(_)
        | Work::CountTasks
        | Work::ConfirmEmpty(_)
        | Work::ShutGate
        | Work::CompleteDrain
        | Work::ProbeDrain
        | Work::Condemn
        | Work::PowerOff => USUAL,
    }
}

pub(super) fn late(limit: Duration) -> anyhow::Error {
    anyhow!("no end within {} s", limit.as_secs())
}

#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn told(error: anyhow::Error) -> String {
    format!("{error:#}")
}

fn by_task(containers: &BTreeSet<TaskContainer>) -> BTreeMap<String, usize> {
    let mut tasks = BTreeMap::new();
    for container in containers {
        *tasks.entry(container.task.clone()).or_default() += 1;
    }
    tasks
}

/// ECS takes 1 to 128 of these characters in an attribute's value, no space at an end.
fn legal(value: &str) -> String {
    let legal: String = value
        .chars()
        .map(|c| {
            let known = c.is_ascii_alphanumeric() || "_.@/\\: -".contains(c);
            if known { c } else { '-' }
        })
        .take(128)
        .collect();
    let legal = legal.trim();
    if legal.is_empty() { "none" } else { legal }.to_owned()
}

/// IAM does not allow it, in the words of whichever service.
fn is_denial(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("AccessDenied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_values_are_made_legal() {
        assert_eq!(legal("2026-11-21T10:18:23Z"), "2026-11-21T10:18:23Z");
        assert_eq!(legal(" a=b,c "), "a-b-c");
        assert_eq!(legal(""), "none");
        assert_eq!(legal(&"x".repeat(200)).len(), 128);
    }
}
