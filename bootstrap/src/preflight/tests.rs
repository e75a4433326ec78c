//! Everything that can be found, at once.

use super::*;
use crate::{
    desired::{Download, S3Object, Source},
    plan::model,
};

/// An account in which everything is as it should be.
fn well(desired: &Desired) -> (Inventory, Surroundings) {
    let inventory = model::empty(desired);
    let zones = inventory
        .subnets
        .values()
        .map(|subnet| subnet.availability_zone.clone());
    let types = desired
        .groups
        .iter()
        .flat_map(|group| group.auto_scaling_group.instance_types.clone());
    let types: BTreeSet<String> = types.collect();
    let surroundings = Surroundings {
        offered: Ok(zones.map(|zone| (zone, types.clone())).collect()),
        route_tables: Ok(vec![RouteTable {
            is_main: true,
            subnets: BTreeSet::new(),
            way_out: Some(Route {
                target: Target::Other("nat-1".into()),
                is_blackhole: false,
            }),
        }]),
        endpoints: Ok(Vec::new()),
        key_pairs: Ok(BTreeSet::new()),
        security_groups: Ok(BTreeMap::new()),
        quotas: vec![Ok(Quota {
            what: "Auto Scaling groups",
            used: 499,
            limit: 500,
            wanted: 1,
        })],
        agent: None,
        dry_runs: [("web".to_owned(), Ok(DryRun::WouldLaunch))].into(),
    };
    (inventory, surroundings)
}

fn told(desired: &Desired, inventory: &Inventory, surroundings: &Surroundings) -> String {
    let findings = findings(desired, inventory, surroundings);
    let lines = findings.iter().map(|finding| {
        let mark = if finding.is_problem {
            "problem"
        } else {
            "warning"
        };
        format!("{mark}: {finding}\n")
    });
    lines.collect()
}

#[test]
fn where_all_is_well_nothing_is_said() {
    let desired = model::desired(&["web"]);
    let (inventory, surroundings) = well(&desired);
    assert_eq!(told(&desired, &inventory, &surroundings), "");
}

#[test]
fn everything_at_once() {
    let mut desired = model::desired(&["web"]);
    let group = &mut desired.groups[0];
    group
        .auto_scaling_group
        .instance_types
        .push("x9.large".into());
    group.launch_template.key_pair = Some("ops".into());
    group.launch_template.security_groups = vec!["sg-1".into(), "sg-2".into()];
    let (mut inventory, mut surroundings) = well(&desired);
    if let Ok(offered) = &mut surroundings.offered {
        for types in offered.values_mut() {
            types.remove("x9.large");
        }
        if let Some(types) = offered.values_mut().next() {
            types.clear();
        }
    }
    for subnet in inventory.subnets.values_mut() {
        subnet.free_addresses = 0;
    }
    surroundings.route_tables = Ok(Vec::new());
    surroundings.endpoints = Ok(vec![
        Endpoint {
            service: "ecs".into(),
            is_available: true,
            has_usual_name: true,
        },
        Endpoint {
            service: "ssm".into(),
            is_available: true,
            has_usual_name: false,
        },
    ]);
    surroundings.security_groups = Ok([("sg-2".to_owned(), "vpc-2".to_owned())].into());
    surroundings.quotas.push(Ok(Quota {
        what: "IAM roles",
        used: 1_000,
        limit: 1_000,
        wanted: 1,
    }));
    let denied = DryRun::Denied("no identity-based policy allows it".into());
    surroundings.dry_runs = [("web".to_owned(), Ok(denied))].into();
    insta::assert_snapshot!(told(&desired, &inventory, &surroundings));
}

#[test]
fn a_question_without_an_answer_is_a_warning() {
    let desired = model::desired(&["web"]);
    let (inventory, mut surroundings) = well(&desired);
    let refused = CallError::malformed("ec2:DescribeRouteTables", "vpc-1", "tables");
    surroundings.route_tables = Err(refused);
    assert_eq!(
        told(&desired, &inventory, &surroundings),
        "warning: ec2:DescribeRouteTables: could not be asked: the answer holds no tables\n"
    );
}

#[test]
fn an_image_says_which_agent_it_has() {
    let ours = env!("CARGO_PKG_VERSION");
    let mut desired = model::desired(&["web"]);
    desired.groups[0].launch_template.image = Image::Pinned("ami-9".into());
    let told_of = |desired: &Desired, version: Option<&str>| {
        let (mut inventory, surroundings) = well(desired);
        let image = crate::inventory::Image {
            agent_version: version.map(str::to_owned),
            ..model::image("ami-9")
        };
        let wanted = desired.groups[0].launch_template.image.clone();
        inventory.images = [(wanted, image)].into();
        told(desired, &inventory, &surroundings)
    };
    for version in [ours, "99.0.0", "99.0.0-rc.1"] {
        assert_eq!(told_of(&desired, Some(version)), "", "{version}");
    }
    let older = told_of(&desired, Some("0.0.9"));
    let said = format!(
        "warning: groups.web.ami: ami-9 has fleet-agent 0.0.9, and this is fleet-bootstrap {ours}:"
    );
    assert!(older.starts_with(&said), "{older}");
    let untold = told_of(&desired, None);
    let said =
        "warning: groups.web.ami: ami-9 has no tag `fleet:agent-version`, and [agent] no source:";
    assert!(untold.starts_with(said), "{untold}");

    // Amazon's, of which the file is warned already.
    desired.groups[0].launch_template.image = Image::Parameter(model::IMAGE.into());
    assert_eq!(told_of(&desired, None), "");
}

#[test]
fn the_agent_in_somebody_s_bucket_is_looked_for() {
    let mut desired = model::desired(&["web"]);
    desired.source = Some(Source {
        download: Download::S3(S3Object {
            region: "eu-central-1".into(),
            bucket: "releases".into(),
            key: "fleet-agent".into(),
        }),
        sha256: "ab".repeat(32),
    });
    let (inventory, mut surroundings) = well(&desired);
    for (answer, said) in [
        (S3Answer::Sha256("ab".repeat(32)), ""),
        // One that was sent in parts has none.
        (S3Answer::Sha256(String::new()), ""),
        (
            S3Answer::Sha256("cd".repeat(32)),
            "problem: agent.source.s3: s3://releases/fleet-agent has SHA-256 cdcd",
        ),
        (
            S3Answer::Missing,
            "problem: agent.source.s3: there is no s3://releases/fleet-agent",
        ),
        (
            S3Answer::Elsewhere,
            "problem: agent.source.s3: s3://releases/fleet-agent is in a bucket of another region than eu-central-1",
        ),
        (
            S3Answer::Denied,
            "warning: agent.source.s3: these credentials may not read s3://releases/fleet-agent",
        ),
    ] {
        surroundings.agent = Some(Ok(answer));
        let told = told(&desired, &inventory, &surroundings);
        assert!(
            told.starts_with(said) && told.is_empty() == said.is_empty(),
            "{told}"
        );
    }
}
