//! Turning a launch order into an EC2 instance in moto and a machine in the machine room.

use super::{World, circumstances::Circumstances, machine::Machine};
use crate::{
    api_error::ApiError,
    autoscaling::{LaunchOrder, Launched, TemplateSpec},
    machines::{Launch, MachineCommand},
    notices::LifeCycle,
};

/// Carries out a launch; what goes wrong becomes a failed scaling activity.
pub(super) async fn run(world: World, order: LaunchOrder) {
    match prepare(&world, &order).await {
        Ok((machine, template)) => {
            let launched = Launched {
                instance_id: machine.instance_id.clone(),
                instance_type: machine.instance_type.clone(),
                image_id: machine.image_id.clone(),
                template,
            };
            world.change(|state, now| {
                // Under the lock, so that neither the machine's first report nor an order to
                // terminate it can come before.
                world.command(MachineCommand::Launch(Box::new(Launch {
                    instance_id: machine.instance_id.clone(),
                    image_id: machine.image_id.clone(),
                })));
                state.machines.insert(machine);
                state.autoscaling.launched(&order.launch_id, launched, now);
            });
        }
        Err(e) => {
            let message = format!("{} Launching EC2 instance failed.", sentence(&e.message));
            world.change(|state, now| {
                let model = &mut state.autoscaling;
                model.launch_failed(&order.launch_id, &message, now);
            });
        }
    }
}

async fn prepare(world: &World, order: &LaunchOrder) -> Result<(Machine, TemplateSpec), ApiError> {
    let moto = world.moto();
    let version = moto.template(&order.template).await?;
    let data = &version.launch_template_data;
    let user_data = data.user_data()?;
    let role = match data.instance_profile() {
        None => None,
        Some(profile) => moto.role_of_profile(profile).await.map_err(|_| {
            // EC2's words while a new profile is not known everywhere yet.
            ApiError::new(
                "InvalidParameterValue",
                format!(
                    "Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid \
                     IAM Instance Profile name."
                ),
            )
        })?,
    };
    let public_key = match data.key_name() {
        None => None,
        Some(name) => Some((name.to_owned(), moto.public_key(name).await?)),
    };
    let mut tags = order.tags.clone();
    let group = ("aws:autoscaling:groupName".to_owned(), order.group.clone());
    tags.extend([group]);
    let instance_type = order.instance_type.as_deref();
    let subnet = &order.subnet.id;
    let instance = moto
        .run_instance(&version, instance_type, subnet, &tags)
        .await?;
    let template = TemplateSpec {
        launch_template_id: Some(version.launch_template_id.clone()),
        launch_template_name: Some(version.launch_template_name.clone()),
        version: Some(version.version_number.to_string()),
    };
    let machine = Machine {
        availability_zone: instance.availability_zone().to_owned(),
        tags: instance.tags(),
        security_groups: instance.security_groups(),
        listed_addresses: instance.addresses(),
        instance_id: instance.instance_id,
        image_id: instance.image_id,
        instance_type: instance.instance_type,
        role,
        public_key,
        user_data,
        tags_in_metadata: data.tags_in_metadata(),
        address: None,
        circumstances: Circumstances::bought(match order.spot {
            true => LifeCycle::Spot,
            false => LifeCycle::OnDemand,
        }),
    };
    Ok((machine, template))
}

fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with('.') {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}
