//! Warm pools: instances that are prepared beside the group and do not count towards its capacity.
//!
//! Launching hooks run on the way into the pool and again on the way out of it (Auto Scaling user
//! guide, "Lifecycle hooks with warm pools"). Scale-out takes the oldest instance that rests in
//! the pool; one still on its way into it is left alone.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Effect, Group, Instance, Model, at,
    describe::{DescribedInstance, members, paged},
    hooks::Transition,
    instances::{LifecycleState, PoolState},
    invalid,
    lifecycle::Hooks,
    requests::{DeleteWarmPool, DescribeWarmPool, PutWarmPool},
};
use crate::api_error::ApiError;

/// A group's warm pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmPool {
    /// Instances at least.
    pub min_size: u32,
    /// Bound of the group's desired capacity and its pool together; the group's maximum if absent.
    pub max_prepared: Option<u32>,
    /// What becomes of machines that enter it.
    pub state: PoolState,
    /// DeleteWarmPool waits for the last of its instances to go.
    pub(super) deleting: bool,
}

/// `WarmPoolConfiguration`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribedPool {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_group_prepared_capacity: Option<u32>,
    min_size: u32,
    pool_state: PoolState,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    instance_reuse_policy: DescribedReuse,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedReuse {
    reuse_on_scale_in: bool,
}

/// DescribeWarmPool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WarmPoolReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_pool_configuration: Option<DescribedPool>,
    #[serde(serialize_with = "members")]
    instances: Vec<DescribedInstance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Model {
    /// PutWarmPool. What the request leaves open is as before. Instances in the pool stay as they
    /// are; its state is for those that enter it from now on.
    ///
    /// # Errors
    /// `ValidationError`; also for `ReuseOnScaleIn`, which ECS does not support (developer guide,
    /// "Amazon ECS Auto Scaling groups": instances would come back registered), and for groups
    /// with Spot Instances, which cannot have a pool (Auto Scaling user guide, "Limitations").
    /// `ScalingActivityInProgress` while the pool is being deleted.
    pub fn put_warm_pool(&mut self, request: &PutWarmPool, now: Timestamp) -> Result<(), ApiError> {
        let name = &request.auto_scaling_group_name;
        let group = self.group_mut(name)?;
        group.refuse_while_deleting()?;
        let reuse = request.instance_reuse_policy.as_ref();
        if reuse.is_some_and(|policy| policy.reuse_on_scale_in.unwrap_or(false)) {
            return Err(invalid(
                "InstanceReusePolicy.ReuseOnScaleIn is not supported with ECS, and fleet-sandbox \
                 does not serve it.",
            ));
        }
        if group.template.may_use_spot() {
            return Err(invalid(
                "You can't add a warm pool to an Auto Scaling group that requests Spot Instances.",
            ));
        }
        let before = group.warm_pool.as_ref();
        if before.is_some_and(|pool| pool.deleting) {
            return Err(ApiError::new(
                "ScalingActivityInProgress",
                "The warm pool is pending delete.",
            ));
        }
        let state = match request.pool_state.as_deref() {
            None => before.map_or(PoolState::Stopped, |pool| pool.state),
            Some("Stopped") => PoolState::Stopped,
            Some("Running") => PoolState::Running,
            Some("Hibernated") => PoolState::Hibernated,
            Some(other) => return Err(invalid(format!("'{other}' is no PoolState"))),
        };
        let max_prepared = match request.max_group_prepared_capacity {
            None => before.and_then(|pool| pool.max_prepared),
            // The API's way back to "the group's maximum".
            Some(-1) => None,
            Some(size) => Some(u32::try_from(size).map_err(|_| {
                invalid(format!(
                    "MaxGroupPreparedCapacity {size} is neither -1 nor positive"
                ))
            })?),
        };
        let min_size = request
            .min_size
            .unwrap_or(before.map_or(0, |pool| pool.min_size));
        group.warm_pool = Some(WarmPool {
            min_size,
            max_prepared,
            state,
            deleting: false,
        });
        self.reconcile(name, now);
        Ok(())
    }

    /// DeleteWarmPool: its instances are terminated, and then it is gone. With force their hooks do
    /// not run.
    ///
    /// # Errors
    /// `ValidationError` if there is none.
    pub fn delete_warm_pool(
        &mut self,
        request: &DeleteWarmPool,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let name = &request.auto_scaling_group_name;
        let group = self.group_mut(name)?;
        let Some(pool) = group.warm_pool.as_mut() else {
            return Err(invalid(format!(
                "No warm pool found for Auto Scaling group {name}"
            )));
        };
        pool.deleting = true;
        if request.force_delete.unwrap_or(false) {
            let instances = group.instances.iter().filter(|i| i.warm.is_some());
            let instances: Vec<(String, LifecycleState)> =
                instances.map(|i| (i.id.clone(), i.state)).collect();
            for (id, state) in instances {
                if state.is_pooled() {
                    let cause = format!("{} the warm pool was deleted by force.", at(now));
                    self.begin_terminating(name, &id, cause, Hooks::Skip, now);
                } else if state != LifecycleState::WarmedTerminatingProceed {
                    self.rush_terminating(name, &id, now);
                }
            }
        }
        self.reconcile(name, now);
        Ok(())
    }

    /// DescribeWarmPool; empty without a pool.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_warm_pool(
        &self,
        request: &DescribeWarmPool,
    ) -> Result<WarmPoolReply, ApiError> {
        let group = self.known_group(&request.auto_scaling_group_name)?;
        let instances = group.instances.iter().filter(|i| i.warm.is_some());
        let page = paged(
            instances.map(|i| i.describe(None)).collect(),
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(WarmPoolReply {
            warm_pool_configuration: group.describe_pool(),
            instances: page.items,
            next_token: page.next_token,
        })
    }

    /// Brings the pool to its size: instances beyond it go, the youngest first.
    pub(super) fn reconcile_pool(&mut self, name: &str, now: Timestamp) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        let Some(wanted) = group.pool_wanted() else {
            return;
        };
        let pooled = group.instances.pooled();
        if pooled < wanted && group.launch_not_before.is_none() {
            for _ in pooled..wanted {
                self.launch_warm(name, now);
            }
        }
        // Launches without an instance cannot be called back: what they bring too much goes then.
        let surplus = self.groups.get(name).map(|g| g.pool_surplus(wanted));
        for id in surplus.into_iter().flatten() {
            let cause = format!(
                "{} an instance was taken out of the warm pool in response to a difference \
                 between its wanted and its actual size.",
                at(now)
            );
            self.begin_terminating(name, &id, cause, Hooks::Run, now);
        }
        if let Some(group) = self.groups.get_mut(name) {
            let empty =
                group.instances.pooled() == 0 && !group.instances.iter().any(|i| i.warm.is_some());
            if empty && group.warm_pool.as_ref().is_some_and(|pool| pool.deleting) {
                group.warm_pool = None;
            }
        }
    }

    /// Moves the oldest instance that rests in the pool into the group; false if there is none.
    pub(super) fn take_from_pool(&mut self, name: &str, before: usize, now: Timestamp) -> bool {
        let activity_id = self.context.ids.uuid();
        let Some(group) = self.groups.get_mut(name) else {
            return false;
        };
        if group.warm_pool.is_none() {
            return false;
        }
        let rests = |i: &&Instance| matches!(i.state, LifecycleState::Warmed(_));
        let Some(id) = group.instances.iter().find(rests).map(|i| i.id.clone()) else {
            return false;
        };
        let cause = format!(
            "{}  {} an instance was started from the warm pool in response to a difference \
             between desired and actual capacity, increasing the capacity from {before} to {}.",
            group.cause,
            at(now),
            before + 1
        );
        let left = group.instances.change(&id, |instance| {
            instance.state = LifecycleState::Pending;
            instance.activity = activity_id.clone();
            instance.warm.take()
        });
        let description = format!("Launching a new EC2 instance from warm pool: {id}");
        group.begin_activity(activity_id, description, cause, "PreInService", now);
        match left.flatten() {
            Some(PoolState::Running) => self.open_hooks(name, &id, Transition::Launching, now),
            Some(PoolState::Stopped | PoolState::Hibernated) | None => {
                self.context.effects.push(Effect::Start { instance_id: id });
            }
        }
        true
    }
}

impl Group {
    /// How many instances its pool is to have: what the prepared capacity leaves beside the desired
    /// one, but at least the pool's own minimum (API reference, PutWarmPool). `None` without a pool.
    fn pool_wanted(&self) -> Option<usize> {
        let pool = self.warm_pool.as_ref()?;
        if pool.deleting {
            return Some(0);
        }
        let prepared = pool.max_prepared.unwrap_or(self.max);
        let wanted = prepared.saturating_sub(self.desired).max(pool.min_size);
        Some(usize::try_from(wanted).unwrap_or(usize::MAX))
    }

    /// The instances that the pool has too many, the youngest.
    fn pool_surplus(&self, wanted: usize) -> Vec<String> {
        if self.instances.pooled() <= wanted {
            return Vec::new();
        }
        let pooled = self.instances.iter().filter(|i| i.state.is_pooled());
        pooled.skip(wanted).map(|i| i.id.clone()).collect()
    }

    /// The instance has entered the pool.
    pub(super) fn rest_in_pool(&mut self, id: &str, now: Timestamp) {
        let entered = self.instances.change(id, |instance| {
            let pool = instance.warm?;
            if instance.state != LifecycleState::WarmedPendingProceed {
                return None;
            }
            instance.state = LifecycleState::Warmed(pool);
            Some(instance.activity.clone())
        });
        if let Some(activity) = entered.flatten() {
            self.end_activity(&activity, "Successful", None, now);
            self.forget_launch_failures();
        }
    }

    pub(super) fn describe_pool(&self) -> Option<DescribedPool> {
        self.warm_pool.as_ref().map(|pool| DescribedPool {
            max_group_prepared_capacity: pool.max_prepared,
            min_size: pool.min_size,
            pool_state: pool.state,
            status: pool.deleting.then_some("PendingDelete"),
            instance_reuse_policy: DescribedReuse {
                reuse_on_scale_in: false,
            },
        })
    }
}
