//! systemd's view of ecs.service, through `systemctl`: asked only while ECS is not up, so a
//! resident D-Bus connection would cost more than it saves.

use std::time::Duration;

use anyhow::Result;

use super::program;

pub(crate) const ECS: &str = "ecs.service";
const DOCKER: &str = "docker.service";
const TIMEOUT: Duration = Duration::from_secs(5);
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,Job,ConditionResult,\
                          ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic,\
                          InactiveEnterTimestampMonotonic";
/// Docker begins to stop at once when ecs.service, which is part of it, has stopped.
const PART_OF_MICROS: u64 = 5_000_000;

/// One unit; times are microseconds of systemd's monotonic clock, 0 for never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) result: String,
    pub(crate) has_job: bool,
    pub(crate) condition: bool,
    pub(crate) active_enter: u64,
    pub(crate) active_exit: u64,
    pub(crate) inactive_enter: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) ecs: Unit,
    pub(crate) docker: Unit,
}

pub(crate) trait Systemd {
    async fn units(&self) -> Result<Units>;
    /// Queues a start of ecs.service. Never a blocking one: it may wait for cloud-init, which may
    /// be waiting for us.
    async fn start_ecs(&self) -> Result<()>;
    async fn restart_ecs(&self) -> Result<()>;
    /// Stops ecs.service and waits until it has, within the client's time-out.
    async fn stop_ecs(&self) -> Result<()>;
    /// Has the machine shut down and power off; units that are to stop before have their time.
    async fn power_off(&self) -> Result<()>;
}

#[derive(Debug)]
pub(crate) struct Systemctl;

impl Systemctl {
    async fn run(arguments: &[&str]) -> Result<String> {
        program::run("systemctl", arguments, TIMEOUT).await
    }
}

impl Systemd for Systemctl {
    async fn units(&self) -> Result<Units> {
        let text = Self::run(&["show", "-p", PROPERTIES, ECS, DOCKER]).await?;
        Ok(parse(&text))
    }

    async fn start_ecs(&self) -> Result<()> {
        Self::run(&["start", "--no-block", ECS]).await.map(drop)
    }

    async fn restart_ecs(&self) -> Result<()> {
        Self::run(&["restart", "--no-block", ECS]).await.map(drop)
    }

    async fn stop_ecs(&self) -> Result<()> {
        Self::run(&["stop", ECS]).await.map(drop)
    }

    async fn power_off(&self) -> Result<()> {
        Self::run(&["poweroff", "--no-block"]).await.map(drop)
    }
}

/// Why a released ecs.service that does not run is to be started, or why it is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heal {
    Start(&'static str),
    Leave(String),
}

/// Decides from systemd's own times, so that it holds over restarts of this agent:
/// a unit that our gate turned away is started; one that an operator stopped is not; one that
/// went down with docker.service (PartOf= stops, but nothing starts it again) is.
pub(crate) fn heal(units: &Units) -> Heal {
    let ecs = &units.ecs;
    let described = format!("{ECS} is {} ({}, {})", ecs.active, ecs.sub, ecs.result);
    if ecs.load == "masked" {
        return Heal::Leave(format!("{ECS} is masked"));
    }
    if ecs.load == "not-found" {
        return Heal::Leave(format!("{ECS} does not exist"));
    }
    if ecs.has_job || ecs.active != "inactive" {
        return Heal::Leave(described);
    }
    if !ecs.condition {
        return Heal::Start("it was held back");
    }
    let docker = &units.docker;
    let went_with_docker = docker.active == "active"
        && ecs.inactive_enter > 0
        && docker.active_enter > ecs.inactive_enter
        && docker.active_exit >= ecs.inactive_enter
        && docker.active_exit - ecs.inactive_enter <= PART_OF_MICROS;
    if went_with_docker {
        return Heal::Start("docker.service had taken it down");
    }
    Heal::Leave(format!("{ECS} was stopped by hand: start it to go on"))
}

fn parse(text: &str) -> Units {
    let mut units = Units::default();
    for block in text.split("\n\n") {
        let value = |key: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let micros = |key: &str| value(key).parse().unwrap_or_default();
        let unit = Unit {
            load: value("LoadState").to_owned(),
            active: value("ActiveState").to_owned(),
            sub: value("SubState").to_owned(),
            result: value("Result").to_owned(),
            has_job: !matches!(value("Job"), "" | "0"),
            condition: value("ConditionResult") == "yes",
            active_enter: micros("ActiveEnterTimestampMonotonic"),
            active_exit: micros("ActiveExitTimestampMonotonic"),
            inactive_enter: micros("InactiveEnterTimestampMonotonic"),
        };
        match value("Id") {
            ECS => units.ecs = unit,
            DOCKER => units.docker = unit,
            _ => {}
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(ecs: Unit, docker: Unit) -> Units {
        Units { ecs, docker }
    }

    fn inactive() -> Unit {
        Unit {
            load: "loaded".into(),
            active: "inactive".into(),
            sub: "dead".into(),
            result: "success".into(),
            condition: true,
            inactive_enter: 9_000_000,
            ..Unit::default()
        }
    }

    #[test]
    fn starts_what_the_gate_turned_away() {
        let held = Unit {
            condition: false,
            inactive_enter: 0,
            ..inactive()
        };
        assert!(matches!(
            heal(&units(held.clone(), Unit::default())),
            Heal::Start(_)
        ));
        for left in [
            Unit {
                has_job: true,
                ..held.clone()
            },
            Unit {
                load: "masked".into(),
                ..held.clone()
            },
            Unit {
                load: "not-found".into(),
                ..held.clone()
            },
            Unit {
                active: "failed".into(),
                ..held.clone()
            },
            Unit {
                active: "activating".into(),
                ..held
            },
        ] {
            assert!(matches!(
                heal(&units(left, Unit::default())),
                Heal::Leave(_)
            ));
        }
    }

    #[test]
    fn an_operators_stop_is_respected_and_dockers_is_undone() {
        let docker = |exit, enter| Unit {
            active: "active".into(),
            active_exit: exit,
            active_enter: enter,
            ..Unit::default()
        };
        let healed = |docker| heal(&units(inactive(), docker));
        assert!(matches!(healed(docker(0, 1_000_000)), Heal::Leave(_)));
        assert!(matches!(
            healed(docker(9_100_000, 20_000_000)),
            Heal::Start(_)
        ));
        // Stopped by hand; docker was restarted a minute later.
        assert!(matches!(
            healed(docker(69_000_000, 70_000_000)),
            Heal::Leave(_)
        ));
        // Docker is still down.
        let down = Unit {
            active: "inactive".into(),
            ..docker(9_100_000, 1_000_000)
        };
        assert!(matches!(healed(down), Heal::Leave(_)));
    }

    #[test]
    fn reads_what_systemctl_shows() {
        let text = "Id=ecs.service\nLoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success\nJob=0\nConditionResult=no\n\nId=docker.service\nActiveState=active\nActiveEnterTimestampMonotonic=77\n";
        let units = parse(text);
        assert_eq!(units.ecs.active, "inactive");
        assert!(!units.ecs.has_job && !units.ecs.condition);
        assert_eq!(units.docker.active_enter, 77);
        assert!(parse("Id=ecs.service\nJob=1523\n").ecs.has_job);
    }
}
