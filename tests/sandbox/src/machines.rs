//! The seam between the control plane's models and whatever plays the part of EC2 hardware.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tokio::sync::oneshot;

use crate::notices::{ImdsFault, LifeCycle, ScheduledEvent};

/// What the models ask of the machine room. Sent in order on one channel.
#[derive(Debug)]
pub enum MachineCommand {
    /// Power on a new machine; answered by [`MachineEvent::Started`] or [`MachineEvent::Failed`].
    Launch(Box<Launch>),
    /// Power off and delete; answered by [`MachineEvent::Gone`]. Unknown ids are answered too.
    Terminate {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Power off and keep, disk and address; answered by [`MachineEvent::Stopped`].
    Stop {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Power on a stopped machine; answered by [`MachineEvent::Started`].
    Start {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Shut the machine down and boot it again. Not answered.
    Reboot {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Keep the disk of a machine that is off, or on its way there, as an image.
    Snapshot {
        /// EC2 instance id.
        instance_id: String,
        /// AMI id.
        image_id: String,
        /// Where to say that it is kept, or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Keep what an image holds under another id, too.
    CopyImage {
        /// AMI id.
        from: String,
        /// AMI id.
        to: String,
        /// Where to say that it is kept, or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// The text on the machine's console so far, or in the end; `None` for a machine that never was.
    Console {
        /// EC2 instance id.
        instance_id: String,
        /// Where to send it.
        reply: oneshot::Sender<Option<String>>,
    },
}

/// A machine to power on.
#[derive(Debug, Clone)]
pub struct Launch {
    /// EC2 instance id.
    pub instance_id: String,
    /// AMI id; the machine room maps it to a node image.
    pub image_id: String,
}

/// What the machine room reports.
#[derive(Debug)]
pub enum MachineEvent {
    /// The machine runs and has this address; the metadata service knows it by it.
    Started {
        /// EC2 instance id.
        instance_id: String,
        /// Its address on the nodes' network.
        address: Ipv4Addr,
    },
    /// It could not be started.
    Failed {
        /// EC2 instance id.
        instance_id: String,
        /// Why.
        reason: String,
    },
    /// It is off, as commanded, and can be started again.
    Stopped {
        /// EC2 instance id.
        instance_id: String,
    },
    /// It is gone: terminated by us, or powered off by itself.
    Gone {
        /// EC2 instance id.
        instance_id: String,
    },
}

/// Everything the metadata service says about one machine; read afresh at each request, so that
/// tags and the lifecycle state are live.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// `instance-id`.
    pub instance_id: String,
    /// `ami-id`.
    pub image_id: String,
    /// `instance-type`.
    pub instance_type: String,
    /// `placement/availability-zone`.
    pub availability_zone: String,
    /// `placement/region`.
    pub region: String,
    /// Account, in the identity document and `iam/info`.
    pub account_id: String,
    /// Role in `iam/security-credentials/`, if the launch template gives one.
    pub role: Option<String>,
    /// Access key of this machine's credentials: it names the machine to the gateway.
    pub access_key_id: String,
    /// `public-keys/0`, the key pair that the launch names: its name and the key as OpenSSH writes it.
    pub public_key: Option<(String, String)>,
    /// `user-data`, decoded.
    pub user_data: Option<Vec<u8>>,
    /// `tags/instance/`, only when the launch template asks for it.
    pub tags: Option<BTreeMap<String, String>>,
    /// `autoscaling/target-lifecycle-state`.
    pub target_lifecycle_state: Option<String>,
    /// `instance-life-cycle`.
    pub life_cycle: LifeCycle,
    /// `spot/instance-action`: action and time, RFC 3339.
    pub spot_action: Option<(String, String)>,
    /// `events/recommendations/rebalance`: notice time, RFC 3339.
    pub rebalance: Option<String>,
    /// `events/maintenance/scheduled`.
    pub maintenance: Vec<ScheduledEvent>,
    /// `events/maintenance/history`.
    pub maintenance_history: Vec<ScheduledEvent>,
    /// What is wrong with the metadata service of this machine.
    pub imds: ImdsFault,
    /// Rises when the service forgets the tokens it has given this machine.
    pub token_generation: u32,
}
