//! Step scaling policies of Auto Scaling groups.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::{ScalingPolicy as SdkPolicy, StepAdjustment as SdkStep};

use super::{
    autoscaling::AutoScaling,
    error::{CallError, failed},
    signed, unsigned,
};
use crate::{
    desired::scaling_policy,
    inventory::{PolicySettings, ScalingPolicy, StepAdjustment},
    spec::Direction,
};

const STEP_SCALING: &str = "StepScaling";
/// Over the minutes for which an alarm stands; Auto Scaling's own, said so that it is nobody's change.
const AGGREGATION: &str = "Average";

impl AutoScaling {
    /// Those of all groups that are called as ours are, by group. The call knows one group or all; by the
    /// policies' names it need not be asked once for each.
    pub(crate) async fn scaling_policies(
        &self,
    ) -> Result<BTreeMap<String, BTreeMap<Direction, ScalingPolicy>>, CallError> {
        let names = Direction::ALL.map(|direction| scaling_policy(direction).to_owned());
        let request = self.client.describe_policies();
        let found: Vec<SdkPolicy> = request
            .set_policy_names(Some(names.to_vec()))
            .policy_types(STEP_SCALING)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("autoscaling:DescribePolicies", &names.join(" ")))?;
        let mut policies: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        for policy in found {
            let name = policy.policy_name.as_deref();
            let mut directions = Direction::ALL.into_iter();
            let direction = directions.find(|of| Some(scaling_policy(*of)) == name);
            let group = policy.auto_scaling_group_name.clone();
            if let (Some(direction), Some(group)) = (direction, group) {
                policies
                    .entry(group)
                    .or_default()
                    .insert(direction, read(policy));
            }
        }
        Ok(policies)
    }

    /// Returns the policy's ARN, which stays the same as long as there is one of its name.
    pub(crate) async fn put_scaling_policy(
        &self,
        group: &str,
        direction: Direction,
        settings: &PolicySettings,
    ) -> Result<String, CallError> {
        const CALL: &str = "autoscaling:PutScalingPolicy";
        let steps = settings.steps.iter().map(|step| {
            SdkStep::builder()
                .set_metric_interval_lower_bound(step.lower)
                .set_metric_interval_upper_bound(step.upper)
                .scaling_adjustment(step.change)
                .build()
        });
        let reply = self
            .client
            .put_scaling_policy()
            .auto_scaling_group_name(group)
            .policy_name(scaling_policy(direction))
            .policy_type(STEP_SCALING)
            .adjustment_type(&settings.adjustment_type)
            .metric_aggregation_type(AGGREGATION)
            .set_step_adjustments(Some(steps.collect()))
            .set_estimated_instance_warmup(settings.warmup_seconds.map(signed))
            .enabled(settings.is_enabled)
            .send()
            .await
            .map_err(failed(CALL, group))?;
        let arn = reply.policy_arn;
        arn.ok_or_else(|| CallError::malformed(CALL, group, "policy ARN"))
    }

    pub(crate) async fn delete_scaling_policy(
        &self,
        group: &str,
        direction: Direction,
    ) -> Result<(), CallError> {
        let request = self.client.delete_policy().auto_scaling_group_name(group);
        let reply = request.policy_name(scaling_policy(direction)).send().await;
        let reply = reply
            .map(drop)
            .map_err(failed("autoscaling:DeletePolicy", group));
        match reply {
            // Its way of saying "not found".
            Err(error) if error.code == "ValidationError" && error.says("not found") => Ok(()),
            other => other,
        }
    }
}

fn read(policy: SdkPolicy) -> ScalingPolicy {
    let steps = policy.step_adjustments.unwrap_or_default().into_iter();
    let mut steps: Vec<StepAdjustment> = steps
        .map(|step| StepAdjustment {
            lower: step.metric_interval_lower_bound,
            upper: step.metric_interval_upper_bound,
            change: step.scaling_adjustment.unwrap_or_default(),
        })
        .collect();
    // In whatever order they come: the one at the threshold has a bound of 0, and no bound ends the last.
    let distance = |step: &StepAdjustment| {
        let bounds = [step.lower, step.upper].into_iter().flatten();
        bounds.map(f64::abs).fold(f64::INFINITY, f64::min)
    };
    steps.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    ScalingPolicy {
        arn: policy.policy_arn.unwrap_or_default(),
        settings: PolicySettings {
            adjustment_type: policy.adjustment_type.unwrap_or_default(),
            steps,
            warmup_seconds: unsigned(policy.estimated_instance_warmup),
            is_enabled: policy.enabled.unwrap_or(true),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_the_threshold_on_in_whichever_order_they_come() {
        let step = |lower, upper, change| StepAdjustment {
            lower,
            upper,
            change,
        };
        let out = [
            step(Some(0.0), Some(10.0), 1),
            step(Some(10.0), Some(15.0), 2),
            step(Some(15.0), None, 4),
        ];
        let inward = [
            step(Some(-10.0), Some(0.0), -1),
            step(Some(-20.0), Some(-10.0), -2),
            step(None, Some(-20.0), -4),
        ];
        for wanted in [out, inward] {
            let adjustments = wanted.iter().rev().map(|step| {
                SdkStep::builder()
                    .set_metric_interval_lower_bound(step.lower)
                    .set_metric_interval_upper_bound(step.upper)
                    .scaling_adjustment(step.change)
                    .build()
            });
            let policy = SdkPolicy::builder().set_step_adjustments(Some(adjustments.collect()));
            assert_eq!(read(policy.build()).settings.steps, wanted);
        }
    }
}
