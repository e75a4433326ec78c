//! Whether a subnet's nodes reach the AWS services that they cannot do without.

use std::collections::BTreeSet;

use super::{Findings, Surroundings};
use crate::{
    desired::Desired,
    inventory::{Inventory, Subnet},
};

/// Without these no node gets ready (ECS guide, "Amazon ECS interface VPC endpoints"; the agent's own
/// calls).
const NEEDED: &[&str] = &["autoscaling", "ecs", "ecs-agent", "ecs-telemetry", "ssm"];
/// Without these something is missing: images of ECR, logs, a shell.
const WANTED: &[&str] = &[
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "logs",
    "s3",
    "ssmmessages",
];

/// A route table of the VPC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RouteTable {
    /// Whether it serves all subnets that no other serves.
    pub(crate) is_main: bool,
    pub(crate) subnets: BTreeSet<String>,
    /// To everywhere, of which it has one at most.
    pub(crate) way_out: Option<Route>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) target: Target,
    /// Its target is gone.
    pub(crate) is_blackhole: bool,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    InternetGateway,
    /// A NAT gateway, a transit gateway, an instance...
    Other(String),
}

/// A VPC endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The last part of its service's name, `ecr.api`.
    pub(crate) service: String,
    pub(crate) is_available: bool,
    /// Whether the service's usual name leads to it; always so for gateway endpoints.
    pub(crate) has_usual_name: bool,
}

/// How nodes get out of a subnet.
#[derive(Debug, PartialEq, Eq)]
enum WayOut {
    /// To everywhere.
    Open,
    /// Through an internet gateway, which only public addresses pass.
    NeedsPublicAddress,
    Blackhole(String),
    /// Nowhere but to endpoints.
    Closed,
}

fn way_out(id: &str, subnet: &Subnet, tables: &[RouteTable]) -> WayOut {
    let own = tables.iter().find(|table| table.subnets.contains(id));
    let table = own.or_else(|| tables.iter().find(|table| table.is_main));
    let Some(route) = table.and_then(|table| table.way_out.as_ref()) else {
        return WayOut::Closed;
    };
    match &route.target {
        Target::InternetGateway if !subnet.gives_public_addresses => WayOut::NeedsPublicAddress,
        Target::Other(target) if route.is_blackhole => WayOut::Blackhole(target.clone()),
        Target::InternetGateway | Target::Other(_) => WayOut::Open,
    }
}

impl Findings {
    pub(super) fn ways_out(
        &mut self,
        desired: &Desired,
        inventory: &Inventory,
        surroundings: &Surroundings,
    ) {
        let Some(tables) = self.answer(&surroundings.route_tables) else {
            return;
        };
        let mut closed = Vec::new();
        for id in &desired.network.subnet_ids {
            let Some(subnet) = inventory.subnets.get(id) else {
                continue;
            };
            match way_out(id, subnet, tables) {
                WayOut::Open => {}
                WayOut::NeedsPublicAddress => self.warning(
                    format!("subnet {id}"),
                    "leads out through an internet gateway, but gives its instances no public address: use a subnet with a NAT gateway, or have it assign public addresses",
                ),
                WayOut::Blackhole(target) => self.warning(
                    format!("subnet {id}"),
                    format!("its route out leads to {target}, which is gone"),
                ),
                WayOut::Closed => closed.push(id.as_str()),
            }
        }
        if !closed.is_empty() {
            self.endpoints(&closed.join(" "), surroundings);
        }
    }

    fn endpoints(&mut self, subnets: &str, surroundings: &Surroundings) {
        let Some(endpoints) = self.answer(&surroundings.endpoints) else {
            return;
        };
        let is_missing = |service: &&&str| {
            let mut endpoints = endpoints.iter();
            !endpoints.any(|endpoint| {
                endpoint.service == **service && endpoint.is_available && endpoint.has_usual_name
            })
        };
        let missing = |services: &[&str]| -> Vec<String> {
            let missing = services.iter().filter(is_missing);
            missing.map(|service| (*service).to_owned()).collect()
        };
        let needed = missing(NEEDED);
        if !needed.is_empty() {
            self.warning(
                format!("subnet {subnets}"),
                format!(
                    "has no route out, and its VPC no endpoint with private DNS for {}: no node gets ready unless they are reached some other way, such as another VPC's",
                    needed.join(", ")
                ),
            );
        }
        let wanted = missing(WANTED);
        if !wanted.is_empty() {
            self.warning(
                format!("subnet {subnets}"),
                format!(
                    "has no route out, and its VPC no endpoint with private DNS for {}: no images of ECR without ecr.api, ecr.dkr and s3, no CloudWatch Logs without logs, no Session Manager without the rest",
                    wanted.join(", ")
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(gives_public_addresses: bool) -> Subnet {
        Subnet {
            vpc_id: "vpc-1".into(),
            availability_zone: "a".into(),
            free_addresses: 250,
            gives_public_addresses,
        }
    }

    fn table(is_main: bool, subnets: &[&str], way_out: Option<Route>) -> RouteTable {
        RouteTable {
            is_main,
            subnets: subnets.iter().map(|id| (*id).to_owned()).collect(),
            way_out,
        }
    }

    #[test]
    fn the_subnets_own_table_is_looked_at_before_the_main_one() {
        let open = Route {
            target: Target::InternetGateway,
            is_blackhole: false,
        };
        let nat = |is_blackhole| Route {
            target: Target::Other("nat-1".into()),
            is_blackhole,
        };
        let own = |way_out| {
            [
                table(true, &[], Some(open.clone())),
                table(false, &["s"], way_out),
            ]
        };
        for (tables, public, expected) in [
            (own(Some(nat(false))), false, WayOut::Open),
            (
                own(Some(nat(true))),
                false,
                WayOut::Blackhole("nat-1".into()),
            ),
            (own(None), true, WayOut::Closed),
            (own(Some(open.clone())), true, WayOut::Open),
            (own(Some(open.clone())), false, WayOut::NeedsPublicAddress),
        ] {
            assert_eq!(
                way_out("s", &subnet(public), &tables),
                expected,
                "{tables:?}"
            );
        }
        let main = [table(true, &[], Some(nat(false)))];
        assert_eq!(way_out("s", &subnet(false), &main), WayOut::Open);
        assert_eq!(way_out("s", &subnet(false), &[]), WayOut::Closed);
    }
}
