//! Names that both programs, the AMI and the units must agree on.

/// The hook that holds a launching instance until its agent has proven it ready.
pub const LAUNCH_HOOK: &str = "fleet-launch";
/// The hook that holds a terminating instance until its tasks are gone.
pub const DRAIN_HOOK: &str = "fleet-drain";

/// Where the agent's settings stand on a node.
pub const AGENT_TOML: &str = "/etc/fleet/agent.toml";
/// Where the agent's binary stands on a node.
pub const AGENT_BINARY: &str = "/usr/bin/fleet-agent";
/// The file whose existence lets ecs.service start: created by the agent, once a boot.
pub const RELEASED: &str = "/run/fleet-agent/released";
/// What sidecars are given to read, below their names: on a tmpfs, for their containers and root.
pub const SECRETS: &str = "/run/fleet-agent/secrets";
/// Where a sidecar finds what it was given to read.
pub const SECRETS_INSIDE: &str = "/run/secrets";
/// The agent's socket, for root only.
pub const SOCKET: &str = "/run/fleet-agent/agent.sock";
/// What the agent keeps over reboots.
pub const STATE_DIRECTORY: &str = "/var/lib/fleet-agent";
/// The drop-in that keeps ecs.service back until the agent releases it.
pub const GATE_PATH: &str = "/etc/systemd/system/ecs.service.d/10-fleet.conf";
/// What is run to see whether Docker can run anything: made on the node from the agent's own binary.
pub const PROBE_IMAGE: &str = "fleet-agent/probe:1";
/// The label by which the agent knows its own containers.
pub const SIDECAR_LABEL: &str = "fleet.sidecar";

/// Container-instance attributes the agent publishes.
pub mod attribute {
    /// The group's name.
    pub const GROUP: &str = "fleet.group";
    /// `ok`, `degraded` or `impaired`.
    pub const HEALTH: &str = "fleet.health";
    /// A short code for the health, `none` when ok.
    pub const REASON: &str = "fleet.reason";
    /// Since when the node is impaired, or when its health last changed, RFC 3339.
    pub const SINCE: &str = "fleet.since";
    /// What the agent is about: `serve`, `drain`, `replace` or `leave`.
    pub const INTENT: &str = "fleet.intent";
    /// The agent's version.
    pub const AGENT: &str = "fleet.agent";
    /// The settings in force: [`crate::Applied`].
    pub const CONFIG: &str = "fleet.config";
}

/// Resource tags.
pub mod tag {
    /// `fleet.name`.
    pub const NAME: &str = "fleet:name";
    /// The environment.
    pub const ENVIRONMENT: &str = "fleet:environment";
    /// The group.
    pub const GROUP: &str = "fleet:group";
    /// The owner id: only what carries it is ever changed or deleted.
    pub const OWNER: &str = "fleet:owner";
    /// A hash of what the resource was made from.
    pub const SPEC: &str = "fleet:spec";
    /// On an instance: the revision of the live settings that its group's parameter holds. It reads that
    /// in its metadata and takes it from there.
    pub const REVISION: &str = "fleet:revision";
    /// On a container instance: the ARN of its EC2 instance, by which policies tell a node from its
    /// neighbours.
    pub const INSTANCE: &str = "fleet:instance";
    /// On an instance: an operator wants it drained. The value is `ID REASON`, the id unlike any
    /// before; the instance reads it in its metadata.
    pub const DRAIN: &str = "fleet:drain";
    /// On an Auto Scaling group: its stale nodes are being replaced, and how far that is.
    pub const ROLL: &str = "fleet:roll";
}
