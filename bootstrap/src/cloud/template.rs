//! Launch template data, to and from EC2's shapes.

use aws_sdk_ec2::types::{
    CreditSpecificationRequest, InstanceType, LaunchTemplateBlockDeviceMapping,
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecification,
    LaunchTemplateIamInstanceProfileSpecificationRequest, LaunchTemplateInstanceMetadataOptions,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateInstanceMetadataTagsState,
    LaunchTemplateTagSpecificationRequest, LaunchTemplatesMonitoringRequest,
    RequestLaunchTemplateData, ResourceType, ResponseLaunchTemplateData, ShutdownBehavior,
    VolumeType,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    ec2::{ec2_tags, tags},
    signed, unsigned,
};
use crate::inventory::{MetadataOptions, SecurityGroupRef, Template, Volume};

/// What EC2 is sent; the security groups are those of the template, all known by now.
pub(super) fn write(
    template: &Template,
    security_group_ids: Vec<String>,
) -> RequestLaunchTemplateData {
    let mut data = RequestLaunchTemplateData::builder()
        .image_id(&template.image_id)
        .instance_type(InstanceType::from(template.instance_type.as_str()))
        .iam_instance_profile(
            LaunchTemplateIamInstanceProfileSpecificationRequest::builder()
                .name(&template.instance_profile)
                .build(),
        )
        .set_security_group_ids(Some(security_group_ids))
        .set_key_name(template.key_pair.clone())
        .metadata_options(write_metadata(&template.metadata))
        .instance_initiated_shutdown_behavior(ShutdownBehavior::from(
            template.shutdown_behavior.as_str(),
        ))
        .user_data(STANDARD.encode(&template.user_data));
    if template.detailed_monitoring {
        data = data.monitoring(
            LaunchTemplatesMonitoringRequest::builder()
                .enabled(true)
                .build(),
        );
    }
    if let Some(credits) = &template.cpu_credits {
        data = data.credit_specification(
            CreditSpecificationRequest::builder()
                .cpu_credits(credits)
                .build(),
        );
    }
    for (device, volume) in &template.volumes {
        data = data.block_device_mappings(write_volume(device, volume));
    }
    for (kind, tags) in &template.tags {
        data = data.tag_specifications(
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(ResourceType::from(kind.as_str()))
                .set_tags(Some(ec2_tags(tags)))
                .build(),
        );
    }
    data.build()
}

/// What EC2 answers. What is missing or foreign in it differs from all that we write.
pub(super) fn read(data: ResponseLaunchTemplateData) -> Template {
    let mappings = data.block_device_mappings.unwrap_or_default();
    let groups = data.security_group_ids.unwrap_or_default();
    let specifications = data.tag_specifications.unwrap_or_default();
    let user_data = data.user_data.unwrap_or_default();
    Template {
        image_id: data.image_id.unwrap_or_default(),
        instance_type: data
            .instance_type
            .map_or_else(String::new, |kind| kind.as_str().to_owned()),
        instance_profile: data
            .iam_instance_profile
            .map(read_profile)
            .unwrap_or_default(),
        security_groups: groups.into_iter().map(SecurityGroupRef::Id).collect(),
        volumes: mappings.into_iter().filter_map(read_volume).collect(),
        cpu_credits: data.credit_specification.and_then(|spec| spec.cpu_credits),
        detailed_monitoring: data
            .monitoring
            .is_some_and(|monitoring| monitoring.enabled == Some(true)),
        key_pair: data.key_name,
        metadata: data.metadata_options.map(read_metadata).unwrap_or_default(),
        shutdown_behavior: data
            .instance_initiated_shutdown_behavior
            .map_or_else(String::new, |behavior| behavior.as_str().to_owned()),
        user_data: STANDARD.decode(user_data).unwrap_or_default(),
        tags: specifications
            .into_iter()
            // The template's own tags are no part of its data, though moto says so.
            .filter(|spec| spec.resource_type != Some(ResourceType::LaunchTemplate))
            .filter_map(|spec| Some((spec.resource_type?.as_str().to_owned(), tags(spec.tags))))
            .collect(),
    }
}

/// By name, or by an ARN that ends in it.
fn read_profile(profile: LaunchTemplateIamInstanceProfileSpecification) -> String {
    let name = profile.name;
    name.or_else(|| Some(profile.arn?.rsplit('/').next()?.to_owned()))
        .unwrap_or_default()
}

fn write_volume(device: &str, volume: &Volume) -> LaunchTemplateBlockDeviceMappingRequest {
    LaunchTemplateBlockDeviceMappingRequest::builder()
        .device_name(device)
        .ebs(
            LaunchTemplateEbsBlockDeviceRequest::builder()
                .volume_size(signed(volume.gib))
                .volume_type(VolumeType::from(volume.kind.as_str()))
                .set_iops(volume.iops.map(signed))
                .set_throughput(volume.throughput_mib.map(signed))
                .encrypted(volume.encrypted)
                .set_kms_key_id(volume.kms_key.clone())
                .delete_on_termination(true)
                .build(),
        )
        .build()
}

fn read_volume(mapping: LaunchTemplateBlockDeviceMapping) -> Option<(String, Volume)> {
    let ebs = mapping.ebs?;
    let volume = Volume {
        gib: unsigned(ebs.volume_size)?,
        kind: ebs.volume_type?.as_str().to_owned(),
        iops: unsigned(ebs.iops),
        throughput_mib: unsigned(ebs.throughput),
        encrypted: ebs.encrypted.unwrap_or(false),
        kms_key: ebs.kms_key_id,
    };
    Some((mapping.device_name?, volume))
}

fn write_metadata(options: &MetadataOptions) -> LaunchTemplateInstanceMetadataOptionsRequest {
    LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .http_tokens(if options.tokens_required {
            LaunchTemplateHttpTokensState::Required
        } else {
            LaunchTemplateHttpTokensState::Optional
        })
        .http_put_response_hop_limit(signed(options.hop_limit))
        .instance_metadata_tags(if options.instance_tags {
            LaunchTemplateInstanceMetadataTagsState::Enabled
        } else {
            LaunchTemplateInstanceMetadataTagsState::Disabled
        })
        .build()
}

fn read_metadata(options: LaunchTemplateInstanceMetadataOptions) -> MetadataOptions {
    MetadataOptions {
        tokens_required: options.http_tokens == Some(LaunchTemplateHttpTokensState::Required),
        hop_limit: unsigned(options.http_put_response_hop_limit).unwrap_or_default(),
        instance_tags: options.instance_metadata_tags
            == Some(LaunchTemplateInstanceMetadataTagsState::Enabled),
    }
}
