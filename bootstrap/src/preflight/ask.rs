//! The questions, all in one round.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, future::OptionFuture, stream};

use super::{Answer, DryRun, Quota, Surroundings};
use crate::{
    cloud::{Cloud, Launch},
    desired::{Desired, Download, Group},
    inventory::{Inventory, Template},
};

/// Calls in flight where each group has one of its own.
const PARALLEL: usize = 8;

/// Asks for everything; `templates` are those that the plan would launch from.
pub(crate) async fn ask(
    cloud: &Cloud,
    desired: &Desired,
    inventory: &Inventory,
    templates: &BTreeMap<String, Template>,
) -> Surroundings {
    let (ec2, vpc) = (&cloud.ec2, &desired.network.vpc_id);
    let types = of_all(desired, |group| {
        group.auto_scaling_group.instance_types.clone()
    });
    let keys = of_all(desired, |group| {
        group.launch_template.key_pair.iter().cloned().collect()
    });
    let firewalls = of_all(desired, |group| {
        group.launch_template.security_groups.clone()
    });
    let agent = desired
        .source
        .as_ref()
        .and_then(|source| match &source.download {
            Download::S3(object) if desired.bucket.upload.is_none() => Some(object),
            Download::S3(_) | Download::Url(_) => None,
        });
    let (offered, route_tables, endpoints, key_pairs, security_groups, quotas, agent, dry_runs) = tokio::join!(
        ec2.offered(&types),
        ec2.route_tables(vpc),
        ec2.endpoints(vpc),
        OptionFuture::from((!keys.is_empty()).then(|| ec2.key_pairs(&keys))),
        OptionFuture::from((!firewalls.is_empty()).then(|| ec2.security_group_vpcs(&firewalls))),
        quotas(cloud, desired, inventory),
        OptionFuture::from(agent.map(|object| cloud.s3.look(&object.bucket, &object.key))),
        dry_runs(cloud, desired, inventory, templates),
    );
    Surroundings {
        offered,
        route_tables,
        endpoints,
        key_pairs: key_pairs.unwrap_or_else(|| Ok(BTreeSet::new())),
        security_groups: security_groups.unwrap_or_else(|| Ok(BTreeMap::new())),
        quotas,
        agent,
        dry_runs,
    }
}

/// What the groups name, each once.
fn of_all(desired: &Desired, names: impl Fn(&Group) -> Vec<String>) -> Vec<String> {
    let names: BTreeSet<String> = desired.groups.iter().flat_map(names).collect();
    names.into_iter().collect()
}

/// Where nothing is to be added nothing is asked.
async fn quotas(cloud: &Cloud, desired: &Desired, inventory: &Inventory) -> Vec<Answer<Quota>> {
    let absent = |is_absent: fn(&crate::inventory::Group) -> bool| {
        let groups = desired.groups.iter();
        let found = groups.filter_map(|group| inventory.groups.get(&group.name));
        u32::try_from(found.filter(|found| is_absent(found)).count()).unwrap_or(u32::MAX)
    };
    let groups = absent(|found| found.auto_scaling_group.owned().is_none());
    let profiles = absent(|found| found.instance_profile.owned().is_none());
    let (auto_scaling, iam) = tokio::join!(
        OptionFuture::from((groups > 0).then(|| cloud.autoscaling.quota(groups))),
        OptionFuture::from((profiles > 0).then(|| cloud.iam.quota(profiles))),
    );
    auto_scaling.into_iter().chain(iam).collect()
}

async fn dry_runs(
    cloud: &Cloud,
    desired: &Desired,
    inventory: &Inventory,
    templates: &BTreeMap<String, Template>,
) -> BTreeMap<String, Answer<DryRun>> {
    let runs = desired.groups.iter().filter_map(|group| {
        let template = templates.get(&group.launch_template.name)?;
        let found = inventory.groups.get(&group.name)?;
        let exists = found.launch_template.owned().is_some();
        Some(async move {
            let launch = Launch {
                template,
                from: exists.then_some(group.launch_template.name.as_str()),
                subnet: desired.network.subnet_ids.first()?,
            };
            Some((group.name.clone(), cloud.ec2.dry_run(&launch).await))
        })
    });
    let runs = stream::iter(runs).buffered(PARALLEL);
    runs.filter_map(async |run| run).collect().await
}
