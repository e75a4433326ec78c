//! What a launch depends on, and what EC2 would say to one.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    InstanceType, LaunchTemplateSpecification, LocationType, RouteState, State, VpcEndpointType,
};

use super::{
    ec2::{Ec2, filter},
    error::{CallError, Kind, failed},
};
use crate::{
    inventory::{SecurityGroupRef, Template},
    preflight::{DryRun, Endpoint, Route, RouteTable, Target},
};

/// Everywhere.
const ANYWHERE: &str = "0.0.0.0/0";

/// An instance that is not launched.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) template: &'a Template,
    /// The launch template of that name is there already.
    pub(crate) from: Option<&'a str>,
    pub(crate) subnet: &'a str,
}

impl Ec2 {
    /// Which of the types each zone offers.
    pub(crate) async fn offered(
        &self,
        types: &[String],
    ) -> Result<BTreeMap<String, BTreeSet<String>>, CallError> {
        let found: Vec<_> = self
            .client
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .filters(filter("instance-type", types))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed(
                "ec2:DescribeInstanceTypeOfferings",
                &types.join(" "),
            ))?;
        let mut offered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for offering in found {
            if let (Some(zone), Some(kind)) = (offering.location, offering.instance_type) {
                let types = offered.entry(zone).or_default();
                types.insert(kind.as_str().to_owned());
            }
        }
        Ok(offered)
    }

    pub(crate) async fn route_tables(&self, vpc_id: &str) -> Result<Vec<RouteTable>, CallError> {
        let tables: Vec<_> = self
            .client
            .describe_route_tables()
            .filters(filter("vpc-id", &[vpc_id.to_owned()]))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeRouteTables", vpc_id))?;
        Ok(tables.into_iter().map(read_table).collect())
    }

    pub(crate) async fn endpoints(&self, vpc_id: &str) -> Result<Vec<Endpoint>, CallError> {
        let endpoints: Vec<_> = self
            .client
            .describe_vpc_endpoints()
            .filters(filter("vpc-id", &[vpc_id.to_owned()]))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeVpcEndpoints", vpc_id))?;
        Ok(endpoints
            .into_iter()
            .filter_map(|endpoint| {
                let name = endpoint.service_name?;
                // com.amazonaws.REGION.SERVICE, the service itself with dots or none.
                let service = name.splitn(4, '.').nth(3)?.to_owned();
                let is_gateway = endpoint.vpc_endpoint_type == Some(VpcEndpointType::Gateway);
                Some(Endpoint {
                    service,
                    // EC2 writes it in small letters, and the SDK knows it by a capital.
                    is_available: endpoint.state.is_some_and(|state| {
                        state
                            .as_str()
                            .eq_ignore_ascii_case(State::Available.as_str())
                    }),
                    has_usual_name: is_gateway || endpoint.private_dns_enabled.unwrap_or(false),
                })
            })
            .collect())
    }

    /// Those of the key pairs that exist.
    pub(crate) async fn key_pairs(&self, names: &[String]) -> Result<BTreeSet<String>, CallError> {
        let reply = self
            .client
            .describe_key_pairs()
            .filters(filter("key-name", names))
            .send()
            .await
            .map_err(failed("ec2:DescribeKeyPairs", &names.join(" ")))?;
        let found = reply.key_pairs.unwrap_or_default();
        Ok(found.into_iter().filter_map(|pair| pair.key_name).collect())
    }

    /// The VPCs of those security groups that exist.
    pub(crate) async fn security_group_vpcs(
        &self,
        ids: &[String],
    ) -> Result<BTreeMap<String, String>, CallError> {
        let groups: Vec<_> = self
            .client
            .describe_security_groups()
            .filters(filter("group-id", ids))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeSecurityGroups", &ids.join(" ")))?;
        Ok(groups
            .into_iter()
            .filter_map(|group| Some((group.group_id?, group.vpc_id?)))
            .collect())
    }

    /// Asks EC2 whether it would launch an instance as Auto Scaling does with these credentials. What
    /// the same plan creates first, profile and security group, is left out.
    pub(crate) async fn dry_run(&self, launch: &Launch<'_>) -> Result<DryRun, CallError> {
        const CALL: &str = "ec2:RunInstances";
        let template = launch.template;
        let existing = template
            .security_groups
            .iter()
            .filter_map(|group| match group {
                SecurityGroupRef::Id(id) => Some(id.clone()),
                SecurityGroupRef::Created(_) => None,
            });
        let reply = self
            .client
            .run_instances()
            .dry_run(true)
            .min_count(1)
            .max_count(1)
            .image_id(&template.image_id)
            .instance_type(InstanceType::from(template.instance_type.as_str()))
            .subnet_id(launch.subnet)
            .set_launch_template(launch.from.map(|name| {
                LaunchTemplateSpecification::builder()
                    .launch_template_name(name)
                    .version("$Latest")
                    .build()
            }))
            .set_key_name(template.key_pair.clone())
            .set_security_group_ids(Some(existing.collect()))
            .send()
            .await;
        let Err(error) = reply.map_err(failed(CALL, &template.instance_type)) else {
            return Ok(DryRun::WouldLaunch);
        };
        match (error.code.as_str(), error.kind) {
            ("DryRunOperation", _) => Ok(DryRun::WouldLaunch),
            (_, Kind::Denied) if launch.from.is_none() => Ok(DryRun::DeniedWithoutTemplate),
            (_, Kind::Denied) => Ok(DryRun::Denied(error.message)),
            (_, Kind::Throttled | Kind::Unreachable | Kind::Credentials) => Err(error),
            _ => Ok(DryRun::Refused(error.message)),
        }
    }
}

fn read_table(table: aws_sdk_ec2::types::RouteTable) -> RouteTable {
    let associations = table.associations.unwrap_or_default();
    let mut routes = table.routes.unwrap_or_default().into_iter();
    let to_anywhere = routes.find(|route| route.destination_cidr_block() == Some(ANYWHERE));
    RouteTable {
        is_main: associations.iter().any(|one| one.main.unwrap_or(false)),
        subnets: associations
            .into_iter()
            .filter_map(|one| one.subnet_id)
            .collect(),
        way_out: to_anywhere.map(|route| Route {
            is_blackhole: route.state == Some(RouteState::Blackhole),
            target: target(route),
        }),
    }
}

fn target(route: aws_sdk_ec2::types::Route) -> Target {
    match route.gateway_id {
        Some(id) if id.starts_with("igw-") => Target::InternetGateway,
        gateway => Target::Other(
            gateway
                .or(route.nat_gateway_id)
                .or(route.transit_gateway_id)
                .or(route.instance_id)
                .or(route.network_interface_id)
                .or(route.vpc_peering_connection_id)
                .unwrap_or_else(|| "a target of another kind".to_owned()),
        ),
    }
}
