//! What is played to one machine: power, notices, maintenance, tags, a metadata service in trouble.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refusal, read};
use crate::{
    machines::MachineCommand,
    notices::{ImdsFault, LifeCycle, MaintenanceCode, SpotAction},
    world::{Circumstances, World},
};

/// POST power: what an operator does in EC2, past Auto Scaling.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// EC2 instance id.
    pub instance: String,
    /// What.
    pub action: PowerAction,
    /// With `stop`: Auto Scaling does not look, as with its health checks suspended.
    #[serde(default)]
    pub unnoticed: bool,
}

/// EC2's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PowerAction {
    /// StopInstances.
    Stop,
    /// StartInstances.
    Start,
    /// RebootInstances.
    Reboot,
    /// TerminateInstances: Auto Scaling notices when the machine is gone.
    Terminate,
}

/// POST spot: a notice now, and it is carried out after `seconds`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// EC2 instance id.
    pub instance: String,
    /// What EC2 does.
    pub action: SpotAction,
    /// EC2 gives 120, and none for `hibernate`.
    pub seconds: u32,
}

/// POST rebalance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// EC2 instance id.
    pub instance: String,
}

/// POST life-cycle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLifeCycle {
    /// EC2 instance id.
    pub instance: String,
    /// How it was bought.
    pub life_cycle: LifeCycle,
}

/// POST maintenance: an event that begins after `seconds`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintain {
    /// EC2 instance id.
    pub instance: String,
    /// What EC2 does.
    pub code: MaintenanceCode,
    /// When it begins.
    pub seconds: u32,
}

/// POST maintenance/cancel: all events of a machine that have not begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelMaintenance {
    /// EC2 instance id.
    pub instance: String,
}

/// POST imds. [`ImdsFault::Status`] 401 makes the service forget the machine's tokens, once, and
/// ends a fault there may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetImds {
    /// EC2 instance id.
    pub instance: String,
    /// What is wrong from now on.
    pub fault: ImdsFault,
}

/// POST tags: CreateTags and DeleteTags of one machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTags {
    /// EC2 instance id.
    pub instance: String,
    /// Tags to put on.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys to take off.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The answer to a path of this module; `None` for any other.
pub(super) async fn serve(
    world: &World,
    path: &str,
    body: &[u8],
) -> Option<Result<Value, Refusal>> {
    Some(match path {
        "power" => read(body).and_then(|asked| power(world, &asked)),
        "spot" => read(body).and_then(|asked| spot(world, &asked)),
        "rebalance" => read(body).and_then(|Rebalance { instance }| {
            befall(world, &instance, |machine, now| {
                machine.recommend_rebalance(now);
                Ok(())
            })
        }),
        "life-cycle" => read(body).and_then(|asked: SetLifeCycle| {
            befall(world, &asked.instance, |machine, _| {
                machine.life_cycle = asked.life_cycle;
                Ok(())
            })
        }),
        "maintenance" => read(body).and_then(|asked| maintain(world, &asked)),
        "maintenance/cancel" => read(body).and_then(|CancelMaintenance { instance }| {
            befall(world, &instance, |machine, _| {
                if machine.cancel_maintenance() == 0 {
                    let message = format!("{instance} has no maintenance to cancel");
                    return Err(Refusal(StatusCode::CONFLICT, message));
                }
                Ok(())
            })
        }),
        "imds" => read(body).and_then(|asked| imds(world, &asked)),
        "tags" => match read(body) {
            Ok(asked) => tags(world, &asked).await,
            Err(refusal) => Err(refusal),
        },
        _ => return None,
    })
}

/// Changes what befalls a machine.
fn befall(
    world: &World,
    instance: &str,
    change: impl FnOnce(&mut Circumstances, Timestamp) -> Result<(), Refusal>,
) -> Result<Value, Refusal> {
    world.change(|state, now| {
        let machine = state.machines.get_mut(instance);
        let machine = machine.ok_or_else(|| no_machine(instance))?;
        change(&mut machine.circumstances, now)?;
        Ok(json!({}))
    })
}

fn power(world: &World, asked: &Power) -> Result<Value, Refusal> {
    let instance_id = asked.instance.clone();
    befall(world, &asked.instance, |machine, _| {
        let command = match (asked.action, machine.stopped) {
            (PowerAction::Stop | PowerAction::Reboot, true) => {
                return Err(incorrect_state(&instance_id, "stopped"));
            }
            (PowerAction::Start, false) => return Err(incorrect_state(&instance_id, "running")),
            (PowerAction::Stop, false) => {
                machine.unnoticed = asked.unnoticed;
                MachineCommand::Stop { instance_id }
            }
            (PowerAction::Start, true) => MachineCommand::Start { instance_id },
            (PowerAction::Reboot, false) => MachineCommand::Reboot { instance_id },
            (PowerAction::Terminate, _) => MachineCommand::Terminate { instance_id },
        };
        world.command(command);
        Ok(())
    })
}

fn spot(world: &World, asked: &Spot) -> Result<Value, Refusal> {
    if asked.action == SpotAction::Hibernate && asked.seconds > 0 {
        let message = "EC2 gives no warning before it hibernates: seconds must be 0".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    befall(world, &asked.instance, |machine, now| {
        machine.give_spot_notice(asked.action, after(now, asked.seconds));
        Ok(())
    })
}

fn maintain(world: &World, asked: &Maintain) -> Result<Value, Refusal> {
    let event_id = world.count(|state| format!("instance-event-{}", state.ids.hex(17)));
    befall(world, &asked.instance, |machine, now| {
        machine.schedule(asked.code, event_id, after(now, asked.seconds));
        Ok(())
    })
}

fn imds(world: &World, asked: &SetImds) -> Result<Value, Refusal> {
    if let ImdsFault::Status { code } = asked.fault
        && !(400..=599).contains(&code)
    {
        let message = format!("{code} is no HTTP status of an error, 400 to 599");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    befall(world, &asked.instance, |machine, _| {
        if asked.fault == (ImdsFault::Status { code: 401 }) {
            machine.token_generation += 1;
            machine.imds = ImdsFault::Ok;
        } else {
            machine.imds = asked.fault;
        }
        Ok(())
    })
}

async fn tags(world: &World, asked: &SetTags) -> Result<Value, Refusal> {
    let instance = asked.instance.as_str();
    if world.look(|state| state.machines.get(instance).is_none()) {
        return Err(no_machine(instance));
    }
    if !asked.set.is_empty() {
        world.moto().create_tags(instance, &asked.set).await?;
    }
    if !asked.remove.is_empty() {
        world.moto().delete_tags(instance, &asked.remove).await?;
    }
    let set: Vec<_> = asked.set.clone().into_iter().collect();
    let removed = asked.remove.iter().map(|key| (key.clone(), String::new()));
    let removed: Vec<_> = removed.collect();
    world.change(|state, _| {
        state.machines.note_tags(instance, &set, false);
        state.machines.note_tags(instance, &removed, true);
    });
    Ok(json!({}))
}

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now + SignedDuration::from_secs(seconds.into())
}

fn no_machine(instance: &str) -> Refusal {
    let message = format!("there is no machine {instance}");
    Refusal(StatusCode::NOT_FOUND, message)
}

fn incorrect_state(instance: &str, state: &str) -> Refusal {
    let message = format!("IncorrectInstanceState: {instance} is {state}");
    Refusal(StatusCode::CONFLICT, message)
}
