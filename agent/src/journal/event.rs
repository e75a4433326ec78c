//! Every event of the journal: a constant MESSAGE_ID, a text and FLEET_* fields. Read one after
//! another they are the node's story. Catalogue texts: systemd/fleet.catalog.

use log::Level;

use crate::health::Verdict;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Started {
        version: &'static str,
        settings: String,
    },
    SettingsRefused {
        problem: String,
    },
    Identified {
        instance: String,
        zone: String,
    },
    EcsConfigWritten {
        restarted: bool,
    },
    SidecarChanged {
        what: String,
    },
    Released,
    EcsStarted {
        why: &'static str,
    },
    Registered {
        container_instance: String,
    },
    LaunchCompleted {
        hook: String,
    },
    LaunchClosed {
        hook: String,
    },
    LaunchAbandoned {
        reason: String,
    },
    /// EC2 has announced something that does not make the node leave, or not yet.
    Announced {
        what: String,
    },
    Noticed {
        kind: &'static str,
        cause: String,
        seconds: u64,
    },
    Withdrawn {
        kind: &'static str,
        cause: String,
    },
    Draining {
        tasks: u32,
    },
    DrainingUnneeded,
    TasksLeft {
        tasks: usize,
    },
    TasksGone,
    Stalled {
        what: String,
        seconds: u64,
    },
    StandaloneStopped {
        stopped: usize,
        left: usize,
    },
    Drained,
    Activated,
    WarmReady {
        hook: String,
    },
    DeadlineReached {
        tasks: usize,
    },
    LeftoversStopped {
        stopped: usize,
        left: usize,
    },
    GateShut,
    SidecarsStopped {
        count: usize,
    },
    DrainCompleted {
        hook: String,
    },
    DrainClosed {
        hook: String,
    },
    /// The rules stand now that were missing, or in the way.
    MetadataBlocked {
        host_tasks: bool,
    },
    /// Something in the ECS agent's settings is not what it seems to be.
    Hazard {
        code: &'static str,
        text: String,
    },
    /// Newer settings than agent.toml's.
    RevisionTaken {
        revision: u64,
    },
    RevisionRefused {
        revision: u64,
        problem: String,
    },
    /// Images that nobody uses were removed.
    RoomMade {
        images: u32,
    },
    HealthChanged {
        verdict: Verdict,
        reason: &'static str,
        /// What was met; empty where nothing more is known.
        detail: String,
    },
    /// This node has stayed impaired, and it is its turn to be replaced.
    Replacing {
        reason: &'static str,
        how: &'static str,
    },
    Waiting {
        on: String,
    },
    CallFailed {
        call: &'static str,
        error: String,
    },
    Recovered {
        call: &'static str,
    },
    Impossible {
        what: String,
    },
    RecordsLost {
        count: u64,
    },
    Stopping,
}

/// An event's constant parts.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// 128 bits, drawn once. Never reused for another meaning.
    message_id: &'static str,
    /// FLEET_EVENT.
    name: &'static str,
    level: Level,
}

const fn kind(message_id: &'static str, name: &'static str, level: Level) -> Kind {
    Kind {
        message_id,
        name,
        level,
    }
}

impl Entry {
    fn kind(&self) -> Kind {
        use Level::{Error, Info, Warn};
        match self {
            Self::Started { .. } => kind("2d2e327808534c5396092ee12707f0f0", "started", Info),
            Self::SettingsRefused { .. } => kind(
                "76deef2bb97347cca98e0a780c1d02f1",
                "settings-refused",
                Error,
            ),
            Self::Identified { .. } => kind("547009db224e41698790e7ad5cba4575", "identified", Info),
            Self::EcsConfigWritten { .. } => kind(
                "60c660e70b71417b874932b7b69ab730",
                "ecs-config-written",
                Info,
            ),
            Self::SidecarChanged { .. } => {
                kind("36cd99cc56e444f88e651d24882c0731", "sidecar-changed", Info)
            }
            Self::Released => kind("ecaa8cde893d4798b43e9fb68d5b717a", "released", Info),
            Self::EcsStarted { .. } => {
                kind("3cfacb286d7f41dd8f948fab815f55cb", "ecs-started", Warn)
            }
            Self::Registered { .. } => kind("3cf8d28382d0413b9d13fca21c665d2d", "registered", Info),
            Self::LaunchCompleted { .. } => {
                kind("31b7b77ef96a4a80ba1e0cf6c6a17484", "launch-completed", Info)
            }
            Self::LaunchClosed { .. } => {
                kind("b8aea59e345a4389bb36f7924fe614a9", "launch-closed", Info)
            }
            Self::LaunchAbandoned { .. } => kind(
                "11cfa3c199b84a389501bb57c184d6ac",
                "launch-abandoned",
                Error,
            ),
            Self::Announced { .. } => kind("2cc9cdeb02274abb89fcb100fbd84de1", "announced", Info),
            Self::Noticed { .. } => kind("e94953e832ff4f2ea1d88a56b3d84b03", "noticed", Info),
            Self::Withdrawn { .. } => kind("d255aeb322454a91b2f955fac9522799", "withdrawn", Info),
            Self::Stalled { .. } => kind("f9966a29a2bc48e5aceb63b26008435a", "stalled", Warn),
            Self::StandaloneStopped { .. } => kind(
                "59835894868141c1822173d87d039e17",
                "standalone-stopped",
                Info,
            ),
            Self::Drained => kind("b27005b287064a3e86ab4d0b22bb623a", "drained", Info),
            Self::Activated => kind("d41822b7aae24afeb30abd38cb8f3cd5", "activated", Info),
            Self::WarmReady { .. } => kind("ceff99c321034b809d053594683c4d2f", "warm-ready", Info),
            Self::Draining { .. } => kind("653297e0ff944ddda7356e38f901d643", "draining", Info),
            Self::DrainingUnneeded => kind(
                "df0a84c805f14e82b69105efe6a035a2",
                "draining-unneeded",
                Info,
            ),
            Self::TasksLeft { .. } => kind("cc60256f599645ce80b8f7c19b4bb914", "tasks-left", Info),
            Self::TasksGone => kind("f3472b889f8f4952a531b5f32b07aa29", "tasks-gone", Info),
            Self::DeadlineReached { .. } => {
                kind("8891ad2c2f4140c4a95c4deeec6936e1", "deadline-reached", Warn)
            }
            Self::LeftoversStopped { .. } => kind(
                "115164906d1e4b59bd44dfce88eb94ea",
                "leftovers-stopped",
                Warn,
            ),
            Self::GateShut => kind("b1f494ea8b654bddb156d2d99eca1398", "gate-shut", Info),
            Self::SidecarsStopped { .. } => {
                kind("6d016d220cb4489e8c82a7cc7cd30c40", "sidecars-stopped", Info)
            }
            Self::DrainCompleted { .. } => {
                kind("3f4bd1197d0f4c8d999f4fe46bb4ede9", "drain-completed", Info)
            }
            Self::DrainClosed { .. } => {
                kind("0b6f72d94d6b4fd08aa7457885f7cc43", "drain-closed", Warn)
            }
            Self::MetadataBlocked { .. } => {
                kind("94b97d553ca2452c98efeaf90d7ccd57", "metadata-blocked", Info)
            }
            Self::Hazard { .. } => kind("3f4be8da3ba44ac0a37fd3b9e26a38c5", "hazard", Warn),
            Self::RevisionTaken { .. } => {
                kind("6f0d1c1f7c0f4f0c9a3e5b7f2c1d8e94", "revision-taken", Info)
            }
            Self::RevisionRefused { .. } => {
                kind("b8a2e4c35d6f4b0e8f17a9c2d3e4f560", "revision-refused", Warn)
            }
            Self::RoomMade { .. } => kind("525a4d42826b4d6fb5d68b59a2c66252", "room-made", Info),
            Self::HealthChanged { verdict, .. } => kind(
                "c56d7555d04541b684111968e9719d60",
                "health-changed",
                if *verdict == Verdict::Ok { Info } else { Warn },
            ),
            Self::Replacing { .. } => kind("7c41f0a9d3e84b25b6f1e2a8d09c5e37", "replacing", Warn),
            Self::Waiting { .. } => kind("20b0657d522b4e57bcd7cab60b7eb1d8", "waiting", Info),
            Self::CallFailed { .. } => {
                kind("1414dd2025394e5abc66b056d57891a1", "call-failed", Warn)
            }
            Self::Recovered { .. } => kind("4baaa7cf8a164af2817a8d4ad7e1b8c6", "recovered", Info),
            Self::Impossible { .. } => {
                kind("8d565377092d4d0f8a78ffd1c1581cbd", "impossible", Error)
            }
            Self::RecordsLost { .. } => {
                kind("553e7167bd07444caa3833d26ca055c6", "records-lost", Warn)
            }
            Self::Stopping => kind("d421d95db9bc42289fa139c8a4a0e914", "stopping", Info),
        }
    }

    pub(crate) fn level(&self) -> Level {
        self.kind().level
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Started { version, settings } => {
                format!("fleet-agent {version} started with settings {settings}")
            }
            Self::SettingsRefused { problem } => format!("settings refused: {problem}"),
            Self::Identified { instance, zone } => format!("this node is {instance} in {zone}"),
            Self::EcsConfigWritten { restarted: false } => "ecs.config written".to_owned(),
            Self::EcsConfigWritten { restarted: true } => {
                "ecs.config written, ecs.service restarted to read it".to_owned()
            }
            Self::SidecarChanged { what } => format!("sidecars: {what}"),
            Self::Released => "ecs.service released".to_owned(),
            Self::EcsStarted { why } => format!("ecs.service started again: {why}"),
            Self::Registered { container_instance } => {
                format!("registered as {container_instance}")
            }
            Self::LaunchCompleted { hook } => format!("completed {hook}: in service"),
            Self::LaunchClosed { hook } => {
                format!("{hook} holds this instance no longer: in service")
            }
            Self::LaunchAbandoned { reason } => format!("abandoning launch: {reason}"),
            Self::Announced { what } => format!("announced: {what}"),
            Self::Noticed { cause, seconds, .. } => {
                format!("notice: {cause}; this node has {seconds} s to leave")
            }
            Self::Withdrawn { cause, .. } => format!("no longer a reason to leave: {cause}"),
            Self::Stalled { what, seconds } => {
                format!("tasks do not leave: {what}; they are stopped in {seconds} s")
            }
            Self::StandaloneStopped { stopped, left } => format!(
                "{} of standalone tasks stopped, {left} left",
                count(*stopped, "container")
            ),
            Self::Drained => "drained: sidecars stay up until the reason is gone".to_owned(),
            Self::Activated => {
                "container instance set back to ACTIVE: it takes tasks again".to_owned()
            }
            Self::WarmReady { hook } => {
                format!("completed {hook}: ready in the warm pool, ecs.service held back")
            }
            Self::Draining { tasks } => {
                format!(
                    "container instance set to DRAINING: {}",
                    count(*tasks, "task")
                )
            }
            Self::DrainingUnneeded => {
                "ECS knows the container instance no longer: nothing to set to DRAINING".to_owned()
            }
            Self::TasksLeft { tasks } => format!("{} left", count(*tasks, "task")),
            Self::TasksGone => "tasks gone".to_owned(),
            Self::DeadlineReached { tasks } => format!(
                "drain deadline reached with {} left: stopping them",
                count(*tasks, "task")
            ),
            Self::LeftoversStopped { stopped, left } => format!(
                "{} stopped, {left} left",
                count(*stopped, "leftover container")
            ),
            Self::GateShut => "never joined ECS: ecs.service held back for good".to_owned(),
            Self::SidecarsStopped { count: number } => {
                format!("{} stopped", count(*number, "sidecar"))
            }
            Self::DrainCompleted { hook } => format!("completed {hook}"),
            Self::DrainClosed { hook } => {
                format!("{hook} holds this instance no longer: it was answered before, or expired")
            }
            Self::MetadataBlocked { host_tasks } => format!(
                "containers are kept from the instance metadata service, tasks in the node's own \
                 network {}",
                if *host_tasks { "as well" } else { "are not" }
            ),
            Self::Hazard { text, .. } => format!("ECS agent's settings: {text}"),
            Self::RevisionTaken { revision } => {
                format!("revision {revision} of the settings taken: starting over with it")
            }
            Self::RevisionRefused { revision, problem } => {
                format!("revision {revision} of the settings refused: {problem}")
            }
            Self::RoomMade { images } => {
                let images = usize::try_from(*images).unwrap_or(usize::MAX);
                format!(
                    "room made on the disk: {} removed",
                    count(images, "unused image")
                )
            }
            Self::HealthChanged {
                verdict,
                reason,
                detail,
            } => {
                let colon = if detail.is_empty() { "" } else { ": " };
                format!("health is {} ({reason}){colon}{detail}", verdict.as_str())
            }
            Self::Replacing { reason, how } => {
                format!("this node stays impaired ({reason}): {how}")
            }
            Self::Waiting { on } => format!("waiting for {on}"),
            Self::CallFailed { call, error } => format!("failed to {call}: {error}"),
            Self::Recovered { call } => format!("{call}: works again"),
            Self::Impossible { what } => format!("ignored, please report: {what}"),
            Self::RecordsLost { count: number } => {
                format!(
                    "{} lost: journald did not take them",
                    count(*number, "record")
                )
            }
            Self::Stopping => {
                "stopping: a drain goes on when fleet-agent is started again".to_owned()
            }
        }
    }

    /// Name and value of every field but MESSAGE.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let kind = self.kind();
        let mut fields = vec![
            ("MESSAGE_ID", kind.message_id.to_owned()),
            ("FLEET_EVENT", kind.name.to_owned()),
        ];
        let mut field = |name, value: &dyn ToString| fields.push((name, value.to_string()));
        match self {
            Self::Started { version, settings } => {
                field("FLEET_VERSION", version);
                field("FLEET_CONFIG", settings);
            }
            Self::Identified { instance, zone } => {
                field("FLEET_INSTANCE", instance);
                field("FLEET_ZONE", zone);
            }
            Self::Registered { container_instance } => {
                field("FLEET_CONTAINER_INSTANCE", container_instance);
            }
            Self::LaunchCompleted { hook }
            | Self::WarmReady { hook }
            | Self::LaunchClosed { hook }
            | Self::DrainCompleted { hook }
            | Self::DrainClosed { hook } => field("FLEET_HOOK", hook),
            Self::LaunchAbandoned { reason } => field("FLEET_REASON", reason),
            Self::Noticed {
                kind,
                cause,
                seconds,
            } => {
                field("FLEET_CAUSE", kind);
                field("FLEET_REASON", cause);
                field("FLEET_SECONDS", seconds);
            }
            Self::Withdrawn { kind, cause } => {
                field("FLEET_CAUSE", kind);
                field("FLEET_REASON", cause);
            }
            Self::Stalled { what, seconds } => {
                field("FLEET_WAITING", what);
                field("FLEET_SECONDS", seconds);
            }
            Self::Draining { tasks } => field("FLEET_TASKS", tasks),
            Self::TasksLeft { tasks } | Self::DeadlineReached { tasks } => {
                field("FLEET_TASKS", tasks);
            }
            Self::TasksGone => field("FLEET_TASKS", &0),
            Self::LeftoversStopped { stopped, left }
            | Self::StandaloneStopped { stopped, left } => {
                field("FLEET_STOPPED", stopped);
                field("FLEET_LEFT", left);
            }
            Self::SidecarsStopped { count } => field("FLEET_SIDECARS", count),
            Self::MetadataBlocked { host_tasks } => field("FLEET_HOST_TASKS", host_tasks),
            Self::Hazard { code, text } => {
                field("FLEET_REASON", code);
                field("FLEET_ERROR", text);
            }
            Self::RevisionTaken { revision } => field("FLEET_REVISION", revision),
            Self::RevisionRefused { revision, problem } => {
                field("FLEET_REVISION", revision);
                field("FLEET_ERROR", problem);
            }
            Self::RoomMade { images } => field("FLEET_IMAGES", images),
            Self::HealthChanged {
                verdict,
                reason,
                detail,
            } => {
                if !detail.is_empty() {
                    field("FLEET_ERROR", detail);
                }
                field("FLEET_HEALTH", &verdict.as_str());
                field("FLEET_REASON", reason);
            }
            Self::Replacing { reason, how: _ } => field("FLEET_REASON", reason),
            Self::Waiting { on } => field("FLEET_WAITING", on),
            Self::CallFailed { call, error } => {
                field("FLEET_CALL", call);
                field("FLEET_ERROR", error);
            }
            Self::Recovered { call } => field("FLEET_CALL", call),
            Self::RecordsLost { count } => field("FLEET_RECORDS", count),
            Self::EcsStarted { why } => field("FLEET_REASON", why),
            Self::SettingsRefused { .. }
            | Self::Announced { .. }
            | Self::Drained
            | Self::Activated
            | Self::EcsConfigWritten { .. }
            | Self::SidecarChanged { .. }
            | Self::Released
            | Self::DrainingUnneeded
            | Self::GateShut
            | Self::Impossible { .. }
            | Self::Stopping => {}
        }
        fields
    }
}

/// `1 task`, `2 tasks`.
fn count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn every() -> Vec<Entry> {
        let text = || "x".to_owned();
        vec![
            Entry::Started {
                version: "0",
                settings: text(),
            },
            Entry::SettingsRefused { problem: text() },
            Entry::Identified {
                instance: text(),
                zone: text(),
            },
            Entry::EcsConfigWritten { restarted: true },
            Entry::SidecarChanged { what: text() },
            Entry::Released,
            Entry::EcsStarted { why: "x" },
            Entry::Registered {
                container_instance: text(),
            },
            Entry::LaunchCompleted { hook: text() },
            Entry::LaunchClosed { hook: text() },
            Entry::LaunchAbandoned { reason: text() },
            Entry::Announced { what: text() },
            Entry::Noticed {
                kind: "x",
                cause: text(),
                seconds: 1,
            },
            Entry::Withdrawn {
                kind: "x",
                cause: text(),
            },
            Entry::Stalled {
                what: text(),
                seconds: 1,
            },
            Entry::StandaloneStopped {
                stopped: 1,
                left: 0,
            },
            Entry::Drained,
            Entry::Activated,
            Entry::WarmReady { hook: text() },
            Entry::Draining { tasks: 1 },
            Entry::DrainingUnneeded,
            Entry::TasksLeft { tasks: 1 },
            Entry::TasksGone,
            Entry::DeadlineReached { tasks: 1 },
            Entry::LeftoversStopped {
                stopped: 1,
                left: 0,
            },
            Entry::GateShut,
            Entry::SidecarsStopped { count: 1 },
            Entry::DrainCompleted { hook: text() },
            Entry::DrainClosed { hook: text() },
            Entry::HealthChanged {
                verdict: Verdict::Ok,
                reason: "none",
                detail: text(),
            },
            Entry::MetadataBlocked { host_tasks: true },
            Entry::RevisionTaken { revision: 1 },
            Entry::RevisionRefused {
                revision: 1,
                problem: text(),
            },
            Entry::RoomMade { images: 1 },
            Entry::Hazard {
                code: "x",
                text: text(),
            },
            Entry::Replacing {
                reason: "docker",
                how: "x",
            },
            Entry::Waiting { on: text() },
            Entry::CallFailed {
                call: "x",
                error: text(),
            },
            Entry::Recovered { call: "x" },
            Entry::Impossible { what: text() },
            Entry::RecordsLost { count: 1 },
            Entry::Stopping,
        ]
    }

    #[test]
    fn the_catalogue_has_one_entry_for_each_event_and_none_more() {
        let catalogue = include_str!("../../../systemd/fleet.catalog");
        let ids: BTreeMap<&str, &str> = every()
            .iter()
            .map(|entry| (entry.kind().message_id, entry.kind().name))
            .collect();
        assert_eq!(ids.len(), every().len(), "a MESSAGE_ID is used twice");
        assert!(ids.keys().all(|id| id.len() == 32));
        let mut described: Vec<&str> = catalogue
            .lines()
            .filter_map(|line| line.strip_prefix("-- "))
            .collect();
        described.sort_unstable();
        assert_eq!(described, ids.into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn numbers_agree_with_their_noun() {
        assert_eq!(
            Entry::Draining { tasks: 3 }.text(),
            "container instance set to DRAINING: 3 tasks"
        );
        assert_eq!(Entry::TasksLeft { tasks: 1 }.text(), "1 task left");
    }
}
