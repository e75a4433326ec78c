//! Subnets, images, security groups, launch templates, instances.

use std::{collections::BTreeMap, time::SystemTime};

use aws_sdk_ec2::{
    Client,
    config::Builder,
    types::{
        Filter, Image as SdkImage, IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType,
        Tag, TagSpecification, UserIdGroupPair,
    },
};
use aws_smithy_types::{DateTime, date_time::Format};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    error::{CallError, failed, found, gone},
    unsigned,
};
use crate::{
    desired::AGENT_VERSION,
    inventory::{Image, Ingress, LaunchTemplate, SecurityGroup, Source, Subnet, Tags, Template},
};

/// All that this program runs on.
const ARCHITECTURE: &str = "x86_64";

/// The most that DescribeLaunchTemplateVersions gives at a time.
const VERSIONS_PER_PAGE: i32 = 200;

#[derive(Debug)]
pub(crate) struct Ec2 {
    pub(super) client: Client,
}

/// An instance, as EC2 itself sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ec2Instance {
    /// `running`, `terminated`...
    pub(crate) state: String,
    pub(crate) tags: Tags,
}

impl Ec2 {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// Those of the subnets that exist. A filter, since naming an absent one fails the whole call.
    pub(crate) async fn subnets(
        &self,
        ids: &[String],
    ) -> Result<BTreeMap<String, Subnet>, CallError> {
        let subnets: Vec<_> = self
            .client
            .describe_subnets()
            .filters(filter("subnet-id", ids))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeSubnets", &ids.join(" ")))?;
        Ok(subnets
            .into_iter()
            .filter_map(|subnet| {
                let found = Subnet {
                    vpc_id: subnet.vpc_id?,
                    availability_zone: subnet.availability_zone.unwrap_or_default(),
                    free_addresses: unsigned(subnet.available_ip_address_count).unwrap_or_default(),
                    gives_public_addresses: subnet.map_public_ip_on_launch.unwrap_or(false),
                };
                Some((subnet.subnet_id?, found))
            })
            .collect())
    }

    /// An image by its id, be it deprecated; `None` when there is none, or it is not shared with us.
    pub(crate) async fn image(&self, id: &str) -> Result<Option<Image>, CallError> {
        // By its id: for a filter EC2 looks through every public image there is.
        let request = self.client.describe_images().include_deprecated(true);
        let reply = request.image_ids(id).send().await;
        let reply = found(reply.map_err(failed("ec2:DescribeImages", id)))?;
        let mut images = reply.and_then(|reply| reply.images).unwrap_or_default();
        Ok(images.pop().and_then(read_image))
    }

    /// The newest image for x86_64 that its owner gave these tags and has not deprecated.
    pub(crate) async fn newest_image(
        &self,
        owner: &str,
        wanted: &Tags,
    ) -> Result<Option<Image>, CallError> {
        let mut request = self
            .client
            .describe_images()
            .owners(owner)
            .filters(filter("state", &["available".to_owned()]));
        for (key, value) in wanted {
            request = request.filters(filter(&format!("tag:{key}"), std::slice::from_ref(value)));
        }
        let found = request.into_paginator().items().send().try_collect().await;
        let mut found: Vec<SdkImage> = found.map_err(failed("ec2:DescribeImages", owner))?;
        // Times as EC2 writes them are in the order of their text.
        found.sort_by(|a, b| b.creation_date.cmp(&a.creation_date));
        let fits = |image: &Image| {
            let is_other = |found: &String| found != ARCHITECTURE;
            !image.is_deprecated && !image.architecture.as_ref().is_some_and(is_other)
        };
        Ok(found.into_iter().filter_map(read_image).find(fits))
    }

    /// Those security groups of the VPC that exist, by name.
    pub(crate) async fn security_groups(
        &self,
        vpc_id: &str,
        names: &[String],
    ) -> Result<BTreeMap<String, SecurityGroup>, CallError> {
        let groups: Vec<_> = self
            .client
            .describe_security_groups()
            .filters(filter("vpc-id", &[vpc_id.to_owned()]))
            .filters(filter("group-name", names))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeSecurityGroups", &names.join(" ")))?;
        Ok(groups
            .into_iter()
            .filter_map(|group| {
                let permissions = group.ip_permissions.unwrap_or_default();
                let found = SecurityGroup {
                    id: group.group_id?,
                    tags: tags(group.tags),
                    ingress: permissions.iter().flat_map(ingress).collect(),
                };
                Some((group.group_name?, found))
            })
            .collect())
    }

    /// Its id. The default rules of a new group are what we want: no way in, every way out.
    pub(crate) async fn create_security_group(
        &self,
        name: &str,
        description: &str,
        vpc_id: &str,
        tags: &Tags,
    ) -> Result<String, CallError> {
        const CALL: &str = "ec2:CreateSecurityGroup";
        let reply = self
            .client
            .create_security_group()
            .group_name(name)
            .description(description)
            .vpc_id(vpc_id)
            .tag_specifications(tagged(ResourceType::SecurityGroup, tags))
            .send()
            .await
            .map_err(failed(CALL, name))?;
        reply
            .group_id
            .ok_or_else(|| CallError::malformed(CALL, name, "id"))
    }

    pub(crate) async fn revoke_ingress(
        &self,
        id: &str,
        rules: &[Ingress],
    ) -> Result<(), CallError> {
        let permissions = rules.iter().map(permission).collect();
        self.client
            .revoke_security_group_ingress()
            .group_id(id)
            .set_ip_permissions(Some(permissions))
            .send()
            .await
            .map(drop)
            .map_err(failed("ec2:RevokeSecurityGroupIngress", id))
    }

    pub(crate) async fn delete_security_group(&self, id: &str) -> Result<(), CallError> {
        let reply = self
            .client
            .delete_security_group()
            .group_id(id)
            .send()
            .await;
        gone(reply.map_err(failed("ec2:DeleteSecurityGroup", id)))
    }

    /// Who keeps a security group in use: each network interface with what AWS says it is for.
    pub(crate) async fn holders(&self, security_group: &str) -> Result<Vec<String>, CallError> {
        let interfaces: Vec<_> = self
            .client
            .describe_network_interfaces()
            .filters(filter("group-id", &[security_group.to_owned()]))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeNetworkInterfaces", security_group))?;
        Ok(interfaces
            .into_iter()
            .map(|interface| {
                let attached = interface.attachment.and_then(|a| a.instance_id);
                format!(
                    "{} ({})",
                    interface.network_interface_id.unwrap_or_default(),
                    attached.or(interface.description).unwrap_or_default()
                )
            })
            .collect())
    }

    /// Those launch templates that exist, by name, without their data.
    pub(crate) async fn launch_templates(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, LaunchTemplate>, CallError> {
        let templates: Vec<_> = self
            .client
            .describe_launch_templates()
            .filters(filter("launch-template-name", names))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeLaunchTemplates", &names.join(" ")))?;
        Ok(templates
            .into_iter()
            .filter_map(|template| {
                let found = LaunchTemplate {
                    tags: tags(template.tags),
                    latest_version: template.latest_version_number.unwrap_or_default(),
                    latest: Template::default(),
                };
                Some((template.launch_template_name?, found))
            })
            .collect())
    }

    /// Names and tags of all launch templates that have these tags.
    pub(crate) async fn tagged_launch_templates(
        &self,
        tagged: &[(&str, &str)],
    ) -> Result<Vec<(String, Tags)>, CallError> {
        let filters = tagged.iter();
        let filters = filters.map(|(key, value)| filter(&format!("tag:{key}"), &[(*value).into()]));
        let found: Vec<_> = self
            .client
            .describe_launch_templates()
            .set_filters(Some(filters.collect()))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeLaunchTemplates", "account"))?;
        let found = found.into_iter();
        let found = found.filter_map(|found| Some((found.launch_template_name?, tags(found.tags))));
        Ok(found.collect())
    }

    /// The data of a launch template's newest version.
    pub(crate) async fn latest_version(&self, name: &str) -> Result<Template, CallError> {
        const CALL: &str = "ec2:DescribeLaunchTemplateVersions";
        let reply = self
            .client
            .describe_launch_template_versions()
            .launch_template_name(name)
            .versions("$Latest")
            .send()
            .await
            .map_err(failed(CALL, name))?;
        reply
            .launch_template_versions
            .and_then(|versions| versions.into_iter().next())
            .and_then(|version| version.launch_template_data)
            .map(super::template::read)
            .ok_or_else(|| CallError::malformed(CALL, name, "data"))
    }

    /// The data of the newest versions of these launch templates, by name, out of all there are.
    pub(crate) async fn latest_versions(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Template>, CallError> {
        let request = self.client.describe_launch_template_versions();
        let request = request.versions("$Latest").max_results(VERSIONS_PER_PAGE);
        let mut pages = request.into_paginator().send();
        let mut found = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed("ec2:DescribeLaunchTemplateVersions", "account"))?;
            let versions = page
                .launch_template_versions
                .unwrap_or_default()
                .into_iter();
            found.extend(versions.filter_map(|version| {
                let name = version.launch_template_name?;
                let data = version.launch_template_data?;
                let is_wanted = names.contains(&&*name);
                is_wanted.then(|| (name, super::template::read(data)))
            }));
        }
        Ok(found)
    }

    /// Creates a launch template with version 1.
    pub(crate) async fn create_launch_template(
        &self,
        name: &str,
        template: &Template,
        security_group_ids: Vec<String>,
        tags: &Tags,
    ) -> Result<(), CallError> {
        self.client
            .create_launch_template()
            .launch_template_name(name)
            .launch_template_data(super::template::write(template, security_group_ids))
            .tag_specifications(tagged(ResourceType::LaunchTemplate, tags))
            .send()
            .await
            .map(drop)
            .map_err(failed("ec2:CreateLaunchTemplate", name))
    }

    /// The number of the new version.
    pub(crate) async fn create_launch_template_version(
        &self,
        name: &str,
        template: &Template,
        security_group_ids: Vec<String>,
    ) -> Result<i64, CallError> {
        const CALL: &str = "ec2:CreateLaunchTemplateVersion";
        let reply = self
            .client
            .create_launch_template_version()
            .launch_template_name(name)
            .launch_template_data(super::template::write(template, security_group_ids))
            .send()
            .await
            .map_err(failed(CALL, name))?;
        reply
            .launch_template_version
            .and_then(|version| version.version_number)
            .ok_or_else(|| CallError::malformed(CALL, name, "version"))
    }

    pub(crate) async fn delete_launch_template(&self, name: &str) -> Result<(), CallError> {
        let request = self.client.delete_launch_template();
        let reply = request.launch_template_name(name).send().await;
        gone(reply.map_err(failed("ec2:DeleteLaunchTemplate", name)))
    }

    pub(crate) async fn tag_launch_template(
        &self,
        name: &str,
        tags: &Tags,
    ) -> Result<(), CallError> {
        const CALL: &str = "ec2:DescribeLaunchTemplates";
        let reply = self
            .client
            .describe_launch_templates()
            .launch_template_names(name)
            .send()
            .await
            .map_err(failed(CALL, name))?;
        let id = reply
            .launch_templates
            .and_then(|templates| templates.into_iter().next())
            .and_then(|template| template.launch_template_id)
            .ok_or_else(|| CallError::malformed(CALL, name, "id"))?;
        self.tag(&[&id], tags).await
    }

    /// Of up to 1,000 resources, by their ids.
    pub(crate) async fn tag(&self, ids: &[&str], tags: &Tags) -> Result<(), CallError> {
        self.client
            .create_tags()
            .set_resources(Some(ids.iter().map(|id| (*id).to_owned()).collect()))
            .set_tags(Some(ec2_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("ec2:CreateTags", &ids.join(" ")))
    }

    /// Takes a tag off a resource, if it still has this value: a newer one is somebody else's.
    pub(crate) async fn untag(&self, id: &str, key: &str, value: &str) -> Result<(), CallError> {
        self.client
            .delete_tags()
            .resources(id)
            .tags(Tag::builder().key(key).value(value).build())
            .send()
            .await
            .map(drop)
            .map_err(failed("ec2:DeleteTags", id))
    }

    /// An instance; EC2 still shows one for about an hour after its end.
    pub(crate) async fn instance(&self, id: &str) -> Result<Option<Ec2Instance>, CallError> {
        let instances: Vec<_> = self
            .client
            .describe_instances()
            // A filter, since naming an absent one fails the call.
            .filters(filter("instance-id", &[id.to_owned()]))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeInstances", id))?;
        let mut instances = instances
            .into_iter()
            .flat_map(|reservation| reservation.instances.unwrap_or_default());
        Ok(instances.next().map(|instance| {
            let state = instance.state.and_then(|state| state.name);
            Ec2Instance {
                state: state.map_or_else(String::new, |name| name.as_str().to_owned()),
                tags: tags(instance.tags),
            }
        }))
    }

    /// What an instance has written to its console so far. `Latest` needs a Nitro instance, which
    /// all current types are; without it AWS answers with the text of the last reboot.
    pub(crate) async fn console(&self, instance_id: &str) -> Result<String, CallError> {
        let reply = self
            .client
            .get_console_output()
            .instance_id(instance_id)
            .latest(true)
            .send()
            .await
            .map_err(failed("ec2:GetConsoleOutput", instance_id))?;
        let encoded: String = reply
            .output
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let bytes = STANDARD.decode(&encoded).unwrap_or(encoded.into_bytes());
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "AWS tells of a deprecation by its date"
)]
fn read_image(image: SdkImage) -> Option<Image> {
    let is_past = |time: &str| {
        let time = DateTime::from_str(time, Format::DateTime);
        time.is_ok_and(|time| time <= DateTime::from(SystemTime::now()))
    };
    Some(Image {
        id: image.image_id?,
        architecture: image.architecture.map(|found| found.as_str().to_owned()),
        is_deprecated: image.deprecation_time.as_deref().is_some_and(is_past),
        agent_version: tags(image.tags).remove(AGENT_VERSION),
    })
}

pub(super) fn filter(name: &str, values: &[String]) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.to_vec()))
        .build()
}

fn tagged(kind: ResourceType, tags: &Tags) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(ec2_tags(tags)))
        .build()
}

pub(super) fn ec2_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

pub(super) fn tags(tags: Option<Vec<Tag>>) -> Tags {
    let tags = tags.unwrap_or_default().into_iter();
    tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect()
}

/// One rule for each source of a permission.
fn ingress(permission: &IpPermission) -> Vec<Ingress> {
    let ipv4 = permission.ip_ranges().iter();
    let ipv6 = permission.ipv6_ranges().iter();
    let lists = permission.prefix_list_ids().iter();
    let groups = permission.user_id_group_pairs().iter();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    ipv4.map(|range| Source::Ipv4(text(range.cidr_ip())))
        .chain(ipv6.map(|range| Source::Ipv6(text(range.cidr_ipv6()))))
        .chain(lists.map(|list| Source::PrefixList(text(list.prefix_list_id()))))
        .chain(groups.map(|pair| Source::SecurityGroup(text(pair.group_id()))))
        .map(|source| Ingress {
            protocol: text(permission.ip_protocol()),
            from_port: permission.from_port(),
            to_port: permission.to_port(),
            source,
        })
        .collect()
}

fn permission(rule: &Ingress) -> IpPermission {
    let builder = IpPermission::builder()
        .ip_protocol(&rule.protocol)
        .set_from_port(rule.from_port)
        .set_to_port(rule.to_port);
    match &rule.source {
        Source::Ipv4(cidr) => builder.ip_ranges(IpRange::builder().cidr_ip(cidr).build()),
        Source::Ipv6(cidr) => builder.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).build()),
        Source::PrefixList(id) => {
            builder.prefix_list_ids(PrefixListId::builder().prefix_list_id(id).build())
        }
        Source::SecurityGroup(id) => {
            builder.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).build())
        }
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_revoked_as_it_was_read() {
        let rules = [
            Source::Ipv4("0.0.0.0/0".into()),
            Source::Ipv6("::/0".into()),
            Source::PrefixList("pl-1".into()),
            Source::SecurityGroup("sg-1".into()),
        ]
        .map(|source| Ingress {
            protocol: "tcp".into(),
            from_port: Some(22),
            to_port: Some(22),
            source,
        });
        for rule in rules {
            assert_eq!(ingress(&permission(&rule)), [rule]);
        }
    }
}
