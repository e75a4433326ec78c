//! What in an adopted cluster depends on this environment's groups.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::PARALLEL;
use crate::{
    cloud::{CallError, Cloud, Service, Task},
    inventory::{Group, Tenancy},
};

/// Nodes that are asked one by one for their tasks.
const FEW: usize = 40;

/// What of somebody else's cluster depends on these groups.
pub(super) async fn tenancy(
    cloud: &Cloud,
    cluster: &str,
    groups: &BTreeMap<String, Group>,
) -> Result<Tenancy, CallError> {
    let groups = groups.values();
    let nodes: BTreeSet<&str> = groups
        .filter_map(|group| group.auto_scaling_group.owned())
        .flat_map(|group| &group.instances)
        .map(|instance| instance.id.as_str())
        .collect();
    let (services, instances) = tokio::try_join!(
        cloud.ecs.services(cluster),
        cloud.ecs.container_instances(cluster)
    )?;
    let ours: BTreeSet<&str> = instances
        .iter()
        .filter(|instance| nodes.contains(instance.instance_id.as_str()))
        .map(|instance| instance.arn.as_str())
        .collect();
    // Others' tasks may be many more.
    let tasks = match ours.len() > FEW {
        true => cloud.ecs.tasks(cluster, None).await?,
        false => {
            let ours = ours.iter();
            let reads = ours.map(|arn| cloud.ecs.tasks(cluster, Some(arn)));
            let each: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
            each.concat()
        }
    };
    Ok(depending(&services, &tasks, &ours))
}

/// From what is in a cluster, and the ARNs of the container instances that are ours.
fn depending(services: &[Service], tasks: &[Task], ours: &BTreeSet<&str>) -> Tenancy {
    let mut tenancy = Tenancy::default();
    for service in services {
        for provider in &service.providers {
            let bound = tenancy.bound.entry(provider.clone()).or_default();
            bound.insert(service.name.clone());
        }
    }
    let is_on_ours = |task: &&Task| {
        let on = task.container_instance.as_deref();
        on.is_some_and(|arn| ours.contains(arn))
    };
    for task in tasks.iter().filter(is_on_ours) {
        match &task.service {
            Some(service) => *tenancy.service_tasks.entry(service.clone()).or_default() += 1,
            None => tenancy.standalone_tasks += 1,
        }
    }
    tenancy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_on_our_nodes_and_services_that_name_our_providers_depend_on_us() {
        let service = |name: &str, providers: &[&str]| Service {
            name: name.into(),
            providers: providers.iter().map(|name| (*name).into()).collect(),
        };
        let task = |service: Option<&str>, on: Option<&str>| Task {
            arn: "arn:task".into(),
            service: service.map(str::to_owned),
            container_instance: on.map(str::to_owned),
        };
        let found = depending(
            &[service("api", &["ours", "theirs"]), service("web", &[])],
            &[
                task(Some("web"), Some("ours/1")),
                task(Some("web"), Some("ours/2")),
                task(Some("web"), Some("theirs/1")),
                task(Some("web"), None),
                task(None, Some("ours/1")),
                task(None, Some("theirs/1")),
            ],
            &["ours/1", "ours/2"].into(),
        );
        assert_eq!(found.service_tasks, [("web".into(), 2)].into());
        assert_eq!(found.standalone_tasks, 1);
        assert_eq!(found.bound["ours"], ["api".to_owned()].into());
    }
}
