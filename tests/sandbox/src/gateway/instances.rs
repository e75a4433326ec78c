//! EC2's instances and what is made of them: moto keeps the books, and the machine room does it. For whoever
//! bakes an image: run a machine, stop it, keep its disk, terminate it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::sync::oneshot;

use super::{form, forward, reply::Reply, request::ApiCall, unserved};
use crate::{
    api_error::ApiError,
    machines::{Launch, MachineCommand},
    moto::{image_made, instances_run},
    notices::LifeCycle,
    world::{Circumstances, Machine, World},
};

/// The key that encrypts what names none (EBS, "Encryption by default").
const DEFAULT_KEY: &str = "alias/aws/ebs";

/// # Errors
/// As EC2 refuses it; what no machine can do, by name.
pub(super) async fn serve(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    match call.operation.as_str() {
        "RunInstances" => run(world, call).await,
        "CreateImage" => create_image(world, call).await,
        "CopyImage" => copy_image(world, call).await,
        "StopInstances" => {
            power(world, call, |instance_id| MachineCommand::Stop {
                instance_id,
            })
            .await
        }
        "TerminateInstances" => {
            power(world, call, |instance_id| MachineCommand::Terminate {
                instance_id,
            })
            .await
        }
        _ => Ok(with_addresses(world, forward::serve(world, call).await?)),
    }
}

/// Whether one would be launched can always be asked (EC2 API, "Error codes"). From a template only Auto Scaling
/// launches.
async fn run(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let parameter = |name: &str| given(call, name);
    if parameter("DryRun").as_deref() == Some("true") {
        let message = "Request would have succeeded, but DryRun flag is set.";
        return Err(ApiError::new("DryRunOperation", message).with_status(412));
    }
    let template = [
        "LaunchTemplate.LaunchTemplateId",
        "LaunchTemplate.LaunchTemplateName",
    ];
    if template.into_iter().any(|name| parameter(name).is_some()) {
        return Err(unserved(call));
    }
    let user_data = parameter("UserData").map(|encoded| BASE64_STANDARD.decode(encoded));
    let user_data = user_data.transpose().map_err(|_| {
        ApiError::new(
            "InvalidParameterValue",
            "Invalid BASE64 encoding of user data.",
        )
    })?;
    let role = match parameter("IamInstanceProfile.Name") {
        None => None,
        Some(profile) => world.moto().role_of_profile(&profile).await?,
    };
    let public_key = match parameter("KeyName") {
        None => None,
        Some(name) => {
            let key = world.moto().public_key(&name).await?;
            Some((name, key))
        }
    };
    let reply = forward::serve(world, call).await?;
    if reply.status != 200 {
        return Ok(reply);
    }
    for instance in instances_run(&String::from_utf8_lossy(&reply.body))? {
        let instance_id = instance.instance_id.clone();
        let machine = Machine {
            availability_zone: instance.availability_zone().to_owned(),
            tags: instance.tags(),
            security_groups: instance.security_groups(),
            listed_addresses: instance.addresses(),
            instance_id: instance.instance_id,
            image_id: instance.image_id,
            instance_type: instance.instance_type,
            role: role.clone(),
            public_key: public_key.clone(),
            user_data: user_data.clone(),
            tags_in_metadata: parameter("MetadataOptions.InstanceMetadataTags").as_deref()
                == Some("enabled"),
            address: None,
            circumstances: Circumstances::bought(LifeCycle::OnDemand),
        };
        power_on(world, machine);
        until_on(world, &instance_id).await?;
    }
    Ok(with_addresses(world, reply))
}

/// What is sent empty is not given.
fn given(call: &ApiCall, name: &str) -> Option<String> {
    form::parameter(&call.body, name).filter(|value| !value.is_empty())
}

fn power_on(world: &World, machine: Machine) {
    world.change(|state, _| {
        // A call that is repeated with its client token launches nothing.
        if state.machines.get(&machine.instance_id).is_some() {
            return;
        }
        // Under the lock, so that the machine's first report cannot come before.
        world.command(MachineCommand::Launch(Box::new(Launch {
            instance_id: machine.instance_id.clone(),
            image_id: machine.image_id.clone(),
        })));
        state.machines.insert(machine);
    });
}

/// EC2 says an instance's address at once; here its machine has to have it first.
async fn until_on(world: &World, instance_id: &str) -> Result<(), ApiError> {
    let mut changes = world.changes();
    loop {
        changes.mark_unchanged();
        match world.look(|state| {
            state
                .machines
                .get(instance_id)
                .map(|machine| machine.address)
        }) {
            Some(Some(_)) => return Ok(()),
            Some(None) if !world.is_stopped() && changes.changed().await.is_ok() => {}
            _ => {
                let message =
                    format!("the machine of {instance_id} did not start: see the sandbox's log");
                return Err(ApiError::new("InternalError", message).with_status(500));
            }
        }
    }
}

async fn power(
    world: &World,
    call: &ApiCall,
    command: fn(String) -> MachineCommand,
) -> Result<Reply, ApiError> {
    let reply = forward::serve(world, call).await?;
    if reply.status == 200 {
        for id in form::list(&call.body, "InstanceId") {
            if world.look(|state| state.machines.get(&id).is_some()) {
                world.command(command(id));
            }
        }
    }
    Ok(reply)
}

/// Of a machine that was told to stop: its disk is kept once it is off.
async fn create_image(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let instance_id = form::parameter(&call.body, "InstanceId").unwrap_or_default();
    make_image(world, call, |image_id, reply| MachineCommand::Snapshot {
        instance_id,
        image_id,
        reply,
    })
    .await
}

async fn copy_image(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let from = form::parameter(&call.body, "SourceImageId").unwrap_or_default();
    make_image(world, call, |to, reply| MachineCommand::CopyImage {
        from,
        to,
        reply,
    })
    .await
}

async fn make_image(
    world: &World,
    call: &ApiCall,
    command: impl FnOnce(String, oneshot::Sender<Result<(), String>>) -> MachineCommand,
) -> Result<Reply, ApiError> {
    let parameter = |name: &str| given(call, name);
    let is_encrypted = parameter("Encrypted").as_deref() == Some("true");
    let key = is_encrypted.then(|| parameter("KmsKeyId").unwrap_or_else(|| DEFAULT_KEY.to_owned()));
    let answer = forward::serve(world, call).await?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let image_id = image_made(&String::from_utf8_lossy(&answer.body))?;
    let (sender, receiver) = oneshot::channel();
    world.command(command(image_id.clone(), sender));
    let made = receiver.await;
    let made = made.unwrap_or_else(|_| Err("the machine room does not answer".to_owned()));
    made.map_err(|why| ApiError::new("IncorrectInstanceState", why))?;
    world.count(|state| state.images.insert(image_id, key));
    Ok(answer)
}

fn with_addresses(world: &World, mut reply: Reply) -> Reply {
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    reply.body = world
        .look(|state| state.machines.with_addresses(body))
        .into_bytes();
    reply
}
