//! Does one piece of work through the clients. Decides nothing.

use std::{cell::Cell, fs, io, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use fleet_agent_config::{Settings, names::attribute};
use tokio::sync::OnceCell;

use super::event::{Attributes, ConfigWritten, Healed, Outcome, Tasks, Work};
use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, Verb},
        docker::{Docker, TaskContainer},
        ecs::Ecs,
        imds::{Identity, Imds},
        introspection::Introspection,
        systemd::{Heal, Systemd, heal},
    },
    clock::Clock,
    ecs_config::{apply::apply, render::layers},
    journal::{event::Entry, sink},
    paths::Paths,
    sidecars::execute::{converge, stop_all},
    state,
};

/// What work needs beside the clients.
#[derive(Debug)]
pub(crate) struct Context<C> {
    pub(crate) clients: C,
    pub(crate) settings: Settings,
    /// Short hash of agent.toml: `fleet.config`.
    pub(crate) revision: String,
    /// What ECS gives a task's container to end.
    pub(crate) container_stop: Duration,
    pub(crate) paths: Paths,
    pub(crate) clock: Clock,
    pub(crate) identity: OnceCell<Identity>,
    /// ecs.config has changed, and whoever runs with the old one has not been restarted yet.
    pub(crate) restart_owed: Cell<bool>,
}

impl<C: Clients> Context<C> {
    pub(super) async fn perform(&self, work: Work) -> Result<Outcome> {
        let clients = &self.clients;
        match work {
            Work::Identify => self.identify().await,
            Work::WriteEcsConfig => self.write_ecs_config().await,
            Work::ReadTarget => clients.imds().target().await.map(Outcome::Target),
            Work::ConvergeSidecars(scope) => {
                let now = || self.clock.wall();
                let sidecars = &self.settings.sidecars;
                let round = converge(clients.docker(), sidecars, scope, now).await?;
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
            Work::CountTasks => Ok(Outcome::Tasks(self.count_tasks().await)),
            Work::ConfirmEmpty(arn) => clients.ecs().live_tasks(&arn).await.map(Outcome::Confirmed),
            Work::ShutGate => self.shut_gate().await,
            Work::StopLeftovers => self.stop_leftovers().await,
            Work::StopSidecars => stop_all(clients.docker(), &self.settings.sidecars)
                .await
                .map(Outcome::SidecarsStopped),
            Work::CompleteDrain => self.answer(&self.settings.drain_hook, Verb::Continue).await,
            Work::ProbeDrain => {
                self.answer(&self.settings.drain_hook, Verb::Heartbeat)
                    .await
            }
        }
    }

    async fn identify(&self) -> Result<Outcome> {
        let identity = self.clients.imds().identity().await?;
        let saved = state::load(&self.paths.state, &identity.instance, &self.clock)?;
        // Set once: an instance's identity does not change.
        let identity = self
            .identity
            .get_or_init(|| async { identity })
            .await
            .clone();
        Ok(Outcome::Identified {
            identity,
            released: self.paths.released.exists(),
            saved,
        })
    }

    async fn write_ecs_config(&self) -> Result<Outcome> {
        // Owed until it is done: a retry finds the files as they must be.
        if apply(&layers(&self.settings), &self.paths)? {
            self.restart_owed.set(true);
        }
        if !self.restart_owed.get() {
            return Ok(Outcome::EcsConfig(ConfigWritten::Unchanged));
        }
        let runs = self.paths.released.exists() && {
            let ecs = self.clients.systemd().units().await?.ecs;
            matches!(ecs.active.as_str(), "active" | "activating" | "reloading")
        };
        if runs {
            self.clients.systemd().restart_ecs().await?;
            self.restart_owed.set(false);
            return Ok(Outcome::EcsConfig(ConfigWritten::Restarted));
        }
        self.restart_owed.set(false);
        Ok(Outcome::EcsConfig(ConfigWritten::Changed))
    }

    async fn release(&self) -> Result<Outcome> {
        let path = &self.paths.released;
        let name = || format!("create {}", path.display());
        let now = !path.exists();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(name)?;
        }
        fs::write(path, "").with_context(name)?;
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
            (attribute::CONFIG, self.revision.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), legal(&value)));
        self.clients.ecs().put_attributes(arn, &pairs).await?;
        Ok(Outcome::Published(attributes))
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
            by_agent: by_agent.map(|tasks| tasks.len()).map_err(told),
            by_docker: by_docker
                .map(|containers| distinct_tasks(&containers))
                .map_err(told),
        }
    }

    /// ECS must neither be started again nor go on with what it may have begun.
    async fn shut_gate(&self) -> Result<Outcome> {
        let path = &self.paths.released;
        match fs::remove_file(path) {
            // ECS may run all the same: the try that removed it may not have come further.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("remove {}", path.display()))?,
        }
        self.clients.systemd().stop_ecs().await?;
        Ok(Outcome::GateShut)
    }

    /// ecs.service goes first, so that restart policies do not bring containers back; whether it
    /// went or not, what is left is stopped, all at the same time.
    async fn stop_leftovers(&self) -> Result<Outcome> {
        let stopped_ecs = self.clients.systemd().stop_ecs().await;
        let docker = self.clients.docker();
        let before = docker.task_containers().await?;
        let grace = self.container_stop;
        let stops = before
            .iter()
            .map(|container| docker.stop(&container.id, grace));
        let stopped = futures_util::future::join_all(stops).await;
        let left = docker.task_containers().await?.len();
        for error in stopped
            .into_iter()
            .chain([stopped_ecs])
            .filter_map(Result::err)
        {
            sink::write(&Entry::CallFailed {
                call: "stop a leftover",
                error: told(error),
            });
        }
        Ok(Outcome::Leftovers {
            stopped: before.len().saturating_sub(left),
            left,
        })
    }
}

/// The longest that `work` may take; the clients' own bounds are shorter, this one catches what
/// they miss.
pub(super) fn bound(work: &Work, settings: &Settings, container_stop: Duration) -> Duration {
    const USUAL: Duration = Duration::from_secs(90);
    const PULLS: Duration = Duration::from_secs(1_800);
    const MARGIN: Duration = Duration::from_secs(30);
    const LISTS: Duration = Duration::from_secs(120);
    match work {
        Work::ConvergeSidecars(_) => PULLS,
        // Both lists of containers may take docker's whole time for one.
        Work::StopLeftovers => container_stop + LISTS + MARGIN,
        Work::StopSidecars => {
            crate::sidecars::execute::stop_bound(&settings.sidecars) + LISTS + MARGIN
        }
        Work::Identify
        | Work::WriteEcsConfig
        | Work::ReadTarget
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
        | Work::ProbeDrain => USUAL,
    }
}

pub(super) fn late(limit: Duration) -> anyhow::Error {
    anyhow!("no end within {} s", limit.as_secs())
}

#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn told(error: anyhow::Error) -> String {
    format!("{error:#}")
}

fn distinct_tasks(containers: &std::collections::BTreeSet<TaskContainer>) -> usize {
    let tasks: std::collections::BTreeSet<&str> = containers
        .iter()
        .map(|container| container.task.as_str())
        .collect();
    tasks.len()
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
