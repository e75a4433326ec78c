//! What EC2 may do to a machine, in its words: the vocabulary of the metadata service, of the admin
//! API and of the command line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `instance-life-cycle`: how the machine was bought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LifeCycle {
    /// Kept as long as its owner likes.
    #[default]
    OnDemand,
    /// May be taken back.
    Spot,
}

impl LifeCycle {
    /// As the metadata service says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }
}

/// What EC2 does with a spot machine that it takes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpotAction {
    /// It is gone.
    #[default]
    Terminate,
    /// It is stopped, and may be started again.
    Stop,
    /// It is hibernated at once: the notice and the act come together.
    Hibernate,
}

impl SpotAction {
    /// As the metadata service says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }
}

/// Kinds of scheduled events.
///
/// Source: EC2 user guide, "Scheduled events for your instances".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MaintenanceCode {
    /// EC2 reboots the machine; it stays on its host.
    InstanceReboot,
    /// EC2 stops the machine, since its host is failing.
    InstanceRetirement,
    /// EC2 stops the machine; it may be started again, on another host.
    InstanceStop,
    /// EC2 reboots the host.
    SystemReboot,
    /// Network or power of the host may be cut for a moment.
    SystemMaintenance,
}

impl MaintenanceCode {
    /// As the metadata service says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InstanceReboot => "instance-reboot",
            Self::InstanceRetirement => "instance-retirement",
            Self::InstanceStop => "instance-stop",
            Self::SystemReboot => "system-reboot",
            Self::SystemMaintenance => "system-maintenance",
        }
    }

    /// What AWS writes beside the code.
    pub fn description(self) -> &'static str {
        match self {
            Self::InstanceReboot | Self::SystemReboot => "scheduled reboot",
            Self::InstanceRetirement | Self::InstanceStop => {
                "The instance is running on degraded hardware"
            }
            Self::SystemMaintenance => "scheduled network maintenance",
        }
    }
}

/// An entry of `events/maintenance/scheduled` or `events/maintenance/history`, as it is written
/// there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduledEvent {
    /// `21 Nov 2026 15:04:05 GMT`.
    pub not_before: String,
    /// See [`MaintenanceCode`].
    pub code: String,
    /// With `[Canceled] ` or `[Completed] ` before it once it is that.
    pub description: String,
    /// `instance-event-0123456789abcdef0`.
    pub event_id: String,
    /// As `not_before`.
    pub not_after: String,
    /// `active`, `canceled` or `completed`.
    pub state: String,
}

/// What is wrong with one machine's metadata service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsFault {
    /// Nothing.
    #[default]
    Ok,
    /// It takes questions and answers none.
    Down,
    /// It waits, then answers with what is true by then.
    Slow {
        /// How long, milliseconds.
        ms: u32,
    },
    /// It answers with what was true when it was asked, after whoever asked has given up.
    Late {
        /// How long after the question, milliseconds.
        ms: u32,
    },
    /// It answers every question, and every request for a token, with this HTTP status.
    Status {
        /// 400 to 599. 401 is no fault that lasts: see the admin API.
        code: u16,
    },
}
