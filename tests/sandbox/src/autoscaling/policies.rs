//! Step scaling policies. Other kinds are refused.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Model, at,
    describe::{members, paged},
    invalid,
    requests::{DeletePolicy, DescribePolicies, PutScalingPolicy, StepAdjustment},
};
use crate::api_error::ApiError;

const STEP_SCALING: &str = "StepScaling";
const CHANGE_IN_CAPACITY: &str = "ChangeInCapacity";
/// Of a policy (Auto Scaling quotas).
const STEPS_MAX: usize = 20;

/// A step scaling policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScalingPolicy {
    auto_scaling_group_name: String,
    policy_name: String,
    #[serde(rename = "PolicyARN")]
    policy_arn: String,
    policy_type: &'static str,
    adjustment_type: &'static str,
    metric_aggregation_type: String,
    #[serde(serialize_with = "members")]
    step_adjustments: Vec<StepAdjustment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_instance_warmup: Option<u32>,
    enabled: bool,
}

/// DescribePolicies.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedPolicies {
    #[serde(serialize_with = "members")]
    scaling_policies: Vec<ScalingPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// PutScalingPolicy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutPolicyReply {
    #[serde(rename = "PolicyARN")]
    policy_arn: String,
}

impl Model {
    /// PutScalingPolicy. The ARN of a policy that is there stays.
    ///
    /// # Errors
    /// `ValidationError`.
    pub fn put_policy(&mut self, request: PutScalingPolicy) -> Result<PutPolicyReply, ApiError> {
        if request.policy_type.as_deref() != Some(STEP_SCALING)
            || request.adjustment_type.as_deref() != Some(CHANGE_IN_CAPACITY)
        {
            let message = "fleet-sandbox serves policies of StepScaling by ChangeInCapacity only.";
            return Err(invalid(message));
        }
        check_steps(&request.step_adjustments)?;
        let uuid = self.context.ids.uuid();
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        group.refuse_while_deleting()?;
        let name = request.policy_name;
        let arn = match group.policies.get(&name) {
            Some(policy) => policy.policy_arn.clone(),
            None => {
                let head = group
                    .arn
                    .split(":autoScalingGroup:")
                    .next()
                    .unwrap_or_default();
                let group = &group.name;
                format!(
                    "{head}:scalingPolicy:{uuid}:autoScalingGroupName/{group}:policyName/{name}"
                )
            }
        };
        let policy = ScalingPolicy {
            auto_scaling_group_name: group.name.clone(),
            policy_name: name.clone(),
            policy_arn: arn.clone(),
            policy_type: STEP_SCALING,
            adjustment_type: CHANGE_IN_CAPACITY,
            metric_aggregation_type: request
                .metric_aggregation_type
                .unwrap_or_else(|| "Average".to_owned()),
            step_adjustments: request.step_adjustments,
            estimated_instance_warmup: request.estimated_instance_warmup,
            enabled: request.enabled.unwrap_or(true),
        };
        group.policies.insert(name, policy);
        Ok(PutPolicyReply { policy_arn: arn })
    }

    /// DeletePolicy.
    ///
    /// # Errors
    /// `ValidationError` if there is none.
    pub fn delete_policy(&mut self, request: &DeletePolicy) -> Result<(), ApiError> {
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        let removed = group.policies.remove(&request.policy_name);
        removed.map(drop).ok_or_else(|| invalid("Policy not found"))
    }

    /// DescribePolicies; of all groups if none is named. Unknown names are left out.
    ///
    /// # Errors
    /// `ValidationError` for an unknown group, `InvalidNextToken`.
    pub fn describe_policies(
        &self,
        request: &DescribePolicies,
    ) -> Result<DescribedPolicies, ApiError> {
        let named = request.auto_scaling_group_name.as_ref();
        if let Some(name) = named {
            self.known_group(name)?;
        }
        let (names, types) = (&request.policy_names, &request.policy_types);
        let groups = self.groups.values();
        let groups = groups.filter(|group| named.is_none_or(|name| *name == group.name));
        let found = groups.flat_map(|group| group.policies.values());
        let found = found.filter(|policy| {
            (names.is_empty() || names.contains(&policy.policy_name))
                && (types.is_empty() || types.iter().any(|kind| kind == policy.policy_type))
        });
        let page = paged(
            found.cloned().collect(),
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(DescribedPolicies {
            scaling_policies: page.items,
            next_token: page.next_token,
        })
    }

    /// Carries a policy out as an alarm has it done, the metric being so far from its threshold. Within the
    /// group's bounds; nothing if the policy is switched off.
    ///
    /// # Errors
    /// `ValidationError` for an unknown policy, or if none of its steps is for that.
    pub fn scale_by_step(
        &mut self,
        policy_arn: &str,
        distance: f64,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let policies = self
            .groups
            .values()
            .flat_map(|group| group.policies.values());
        let mut policies = policies.filter(|policy| policy.policy_arn == policy_arn);
        let policy = policies.next();
        let policy = policy.ok_or_else(|| invalid(format!("There is no policy {policy_arn}.")))?;
        let change = policy
            .step(distance)
            .ok_or_else(|| invalid(format!("Policy {policy_arn} has no step for {distance}.")))?;
        if !policy.enabled {
            return Ok(());
        }
        let (name, policy) = (
            policy.auto_scaling_group_name.clone(),
            policy.policy_name.clone(),
        );
        let group = self.group_mut(&name)?;
        group.refuse_while_deleting()?;
        let before = group.desired;
        let desired = before
            .saturating_add_signed(change)
            .clamp(group.min, group.max);
        if desired == before {
            return Ok(());
        }
        group.cause = format!(
            "{} a monitor alarm triggered policy {policy} changing the desired capacity from {before} to {desired}.",
            at(now)
        );
        group.desired = desired;
        self.reconcile(&name, now);
        Ok(())
    }
}

impl ScalingPolicy {
    /// Beyond a threshold above, lower bounds are inclusive and upper ones exclusive, and the other way
    /// round below (API reference, StepAdjustment).
    fn step(&self, distance: f64) -> Option<i32> {
        let is_above = distance >= 0.0;
        let is_in = |step: &&StepAdjustment| {
            let (lower, upper) = (
                step.metric_interval_lower_bound,
                step.metric_interval_upper_bound,
            );
            let is_over = |bound: f64| distance > bound || (is_above && distance >= bound);
            let is_under = |bound: f64| distance < bound || (!is_above && distance <= bound);
            lower.is_none_or(is_over) && upper.is_none_or(is_under)
        };
        let step = self.step_adjustments.iter().find(is_in)?;
        Some(step.scaling_adjustment)
    }
}

/// API reference, StepAdjustment.
fn check_steps(steps: &[StepAdjustment]) -> Result<(), ApiError> {
    if steps.is_empty() || steps.len() > STEPS_MAX {
        return Err(invalid(format!(
            "A policy has 1 to {STEPS_MAX} step adjustments."
        )));
    }
    let mut ranges: Vec<(f64, f64)> = Vec::new();
    for step in steps {
        let bounds = (
            step.metric_interval_lower_bound,
            step.metric_interval_upper_bound,
        );
        if bounds == (None, None) {
            return Err(invalid("A step adjustment needs a bound."));
        }
        let lower = bounds.0.unwrap_or(f64::NEG_INFINITY);
        let upper = bounds.1.unwrap_or(f64::INFINITY);
        if lower >= upper {
            return Err(invalid(
                "The lower bound of a step adjustment is not below its upper one.",
            ));
        }
        ranges.push((lower, upper));
    }
    ranges.sort_by(|a, b| a.0.total_cmp(&b.0));
    if ranges
        .windows(2)
        .any(|pair| pair[0].1.total_cmp(&pair[1].0).is_ne())
    {
        return Err(invalid(
            "Step adjustments overlap or have a gap between them.",
        ));
    }
    let (first, last) = (ranges[0], ranges[ranges.len() - 1]);
    if first.0 < 0.0 && first.0.is_finite() || last.1 > 0.0 && last.1.is_finite() {
        return Err(invalid(
            "The outermost step adjustment has to be without end.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(lower: Option<f64>, upper: Option<f64>, change: i32) -> StepAdjustment {
        StepAdjustment {
            metric_interval_lower_bound: lower,
            metric_interval_upper_bound: upper,
            scaling_adjustment: change,
        }
    }

    #[test]
    fn steps_that_auto_scaling_refuses_are_refused() {
        for (steps, is_fine) in [
            (vec![step(Some(0.0), None, 1)], true),
            (
                vec![step(Some(15.0), None, 3), step(Some(0.0), Some(15.0), 1)],
                true,
            ),
            (
                vec![
                    step(None, Some(-10.0), -2),
                    step(Some(-10.0), Some(0.0), -1),
                ],
                true,
            ),
            (vec![], false),
            (vec![step(None, None, 1)], false),
            (vec![step(Some(0.0), Some(10.0), 1)], false),
            (vec![step(Some(-10.0), Some(0.0), -1)], false),
            (
                vec![step(Some(0.0), Some(10.0), 1), step(Some(11.0), None, 2)],
                false,
            ),
            (
                vec![step(Some(0.0), Some(10.0), 1), step(Some(9.0), None, 2)],
                false,
            ),
        ] {
            assert_eq!(check_steps(&steps).is_ok(), is_fine, "{steps:?}");
        }
    }
}
