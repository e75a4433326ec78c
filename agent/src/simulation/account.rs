//! What one AWS account lets through, over all its clusters: the ECS request limits, below the trait
//! and with the SDK's own retries, so that what agents really send is what counts.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use fleet_sandbox::ecs::Limits;
use jiff::Timestamp;
use tokio::time::sleep;

use super::{clients::Remotes, world::CLUSTER};

/// As in `clients::aws`.
const ATTEMPTS: u32 = 3;
/// The SDK's standard mode: full jitter on a base of 1 s that doubles, at most 20 s (AWS SDKs and
/// tools reference guide, "Retry behavior").
const BACKOFF: u64 = 1_000;
const MAX_BACKOFF: u64 = 20_000;

/// Requests that share a bucket of ECS ("Request throttling for the Amazon ECS API").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bucket {
    /// Cluster resources, modify: 100 at once, then 40 a second.
    Modify,
    /// Cluster resources, read: 100 at once, then 20 a second.
    Read,
    /// Auto Scaling's, whose figure AWS does not tell: never refused here.
    AutoScaling,
}

/// What was asked of a bucket in one second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) taken: u64,
    pub(super) refused: u64,
}

/// The account and its region, shared by the worlds of its clusters.
#[derive(Debug, Default)]
pub(super) struct Account {
    limits: Limits,
    asked: BTreeMap<(Bucket, u64), Asked>,
}

/// What is kept of a node whose times are of interest.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Requests sent, retries included.
    pub(super) requests: u64,
    pub(super) draining_at: Option<u64>,
    pub(super) answered_at: Option<u64>,
    /// What its sidecars took to flush and to stop.
    pub(super) sidecars_ms: u64,
    pub(super) ecs_started_at: Option<u64>,
}

impl Account {
    /// Whether a request is let through.
    pub(super) fn ask(&mut self, operation: &str, now: Timestamp, millis: u64) -> bool {
        let is_taken = self.limits.take(operation, now).is_ok();
        let asked = self
            .asked
            .entry((bucket(operation), millis / 1_000))
            .or_default();
        if is_taken {
            asked.taken += 1;
        } else {
            asked.refused += 1;
        }
        is_taken
    }

    /// What each second from `from` until before `until` asked of a bucket; seconds without requests
    /// are left out.
    pub(super) fn asked(
        &self,
        bucket: Bucket,
        from: u64,
        until: u64,
    ) -> impl Iterator<Item = Asked> {
        let range = (bucket, from)..(bucket, until);
        self.asked.range(range).map(|(_, asked)| *asked)
    }
}

fn bucket(operation: &str) -> Bucket {
    match operation {
        "UpdateContainerInstancesState" | "PutAttributes" => Bucket::Modify,
        "DescribeContainerInstances"
        | "ListTasks"
        | "DescribeTasks"
        | "ListContainerInstances"
        | "ListAttributes" => Bucket::Read,
        _ => Bucket::AutoScaling,
    }
}

impl Remotes {
    /// Sends all requests that a call of the trait is made of, one after the other, each with the
    /// SDK's retries.
    pub(super) async fn request(&self, call: &'static str) -> Result<()> {
        for operation in self.operations(call) {
            for attempt in 1.. {
                let latency = self.world.borrow_mut().rng.u64(20..150);
                sleep(Duration::from_millis(latency)).await;
                self.alive().await;
                if self.is_let_through(operation) {
                    break;
                }
                if attempt == ATTEMPTS {
                    bail!("{call}: {operation}: ThrottlingException: Rate exceeded");
                }
                let most = MAX_BACKOFF.min(BACKOFF << (attempt - 1));
                let wait = self.world.borrow_mut().rng.u64(..=most);
                sleep(Duration::from_millis(wait)).await;
                self.alive().await;
            }
        }
        Ok(())
    }

    fn is_let_through(&self, operation: &str) -> bool {
        let mut world = self.world.borrow_mut();
        let (now, millis) = (world.now(), world.millis());
        world.nodes[self.node].book.marks.requests += 1;
        let account = world.account.clone();
        account.is_none_or(|account| account.borrow_mut().ask(operation, now, millis))
    }

    /// As `clients::ecs` makes them.
    fn operations(&self, call: &str) -> Vec<&'static str> {
        let world = self.world.borrow();
        let arn = world.nodes[self.node].ecs.arn.as_deref();
        let tasks = arn.and_then(|arn| world.ecs.tasks_on(Some(CLUSTER), arn).ok());
        let tasks = tasks.unwrap_or_default();
        match call {
            "ecs describe" => vec!["DescribeContainerInstances"],
            "ecs set DRAINING" | "ecs set ACTIVE" => vec!["UpdateContainerInstancesState"],
            "ecs put attributes" => vec!["PutAttributes"],
            // Both desired statuses are listed; those stopped within the hour are told, too.
            "ecs live tasks" if tasks.is_empty() => vec!["ListTasks", "ListTasks"],
            "ecs live tasks" => vec!["ListTasks", "ListTasks", "DescribeTasks"],
            "ecs task groups" if tasks.iter().any(|task| task.is_live()) => {
                vec!["ListTasks", "DescribeTasks"]
            }
            "ecs task groups" => vec!["ListTasks"],
            "ecs list instances" => vec!["ListContainerInstances"],
            _ => vec!["LifecycleAction"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::world::at;

    #[test]
    fn all_agents_share_the_buckets_and_every_request_is_counted() {
        let mut account = Account::default();
        for (operation, bucket) in [
            ("UpdateContainerInstancesState", Bucket::Modify),
            ("ListTasks", Bucket::Read),
        ] {
            let taken = (0..150).filter(|_| account.ask(operation, at(0), 0));
            assert_eq!(taken.count(), 100, "{operation}");
            let asked: Vec<_> = account.asked(bucket, 0, 1).collect();
            assert_eq!((asked[0].taken, asked[0].refused), (100, 50));
        }
        assert!(!account.ask("PutAttributes", at(0), 0), "one bucket");
        assert!((0..1_000).all(|_| account.ask("LifecycleAction", at(0), 0)));
    }
}
