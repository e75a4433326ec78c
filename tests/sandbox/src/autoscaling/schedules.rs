//! Scheduled actions. They are kept and described; nothing happens at their time.

use serde::Serialize;

use super::{
    Model,
    describe::{members, paged},
    invalid,
    requests::{DeleteSchedule, DescribeSchedules, PutSchedule},
};
use crate::api_error::ApiError;

/// The API's own bound of a group's scheduled actions.
const SCHEDULES_MAX: usize = 125;

/// A scheduled action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Schedule {
    auto_scaling_group_name: String,
    scheduled_action_name: String,
    #[serde(rename = "ScheduledActionARN")]
    scheduled_action_arn: String,
    recurrence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_capacity: Option<u32>,
}

/// DescribeScheduledActions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedSchedules {
    #[serde(serialize_with = "members")]
    scheduled_update_group_actions: Vec<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Model {
    /// PutScheduledUpdateGroupAction. What the request leaves open is as before.
    ///
    /// # Errors
    /// `ValidationError`, `LimitExceeded`.
    pub fn put_schedule(&mut self, request: PutSchedule) -> Result<(), ApiError> {
        let name = request.scheduled_action_name;
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        let before = group.schedules.get(&name);
        let Some(recurrence) = request
            .recurrence
            .or_else(|| before.map(|before| before.recurrence.clone()))
        else {
            return Err(invalid(
                "fleet-sandbox serves scheduled actions with a Recurrence only.",
            ));
        };
        if recurrence.split_ascii_whitespace().count() != 5 {
            return Err(invalid(format!(
                "Given recurrence string: {recurrence} is invalid"
            )));
        }
        let size = |asked: Option<u32>, kept: fn(&Schedule) -> Option<u32>| {
            asked.or_else(|| before.and_then(kept))
        };
        let schedule = Schedule {
            scheduled_action_arn: group.arn.replacen(
                ":autoScalingGroup:",
                ":scheduledUpdateGroupAction:",
                1,
            ) + &format!(":scheduledActionName/{name}"),
            auto_scaling_group_name: group.name.clone(),
            scheduled_action_name: name.clone(),
            time_zone: request
                .time_zone
                .or_else(|| before.and_then(|before| before.time_zone.clone())),
            min_size: size(request.min_size, |before| before.min_size),
            max_size: size(request.max_size, |before| before.max_size),
            desired_capacity: size(request.desired_capacity, |before| before.desired_capacity),
            recurrence,
        };
        let sizes = [
            schedule.min_size,
            schedule.desired_capacity,
            schedule.max_size,
        ];
        let sizes: Vec<u32> = sizes.into_iter().flatten().collect();
        if sizes.is_empty() {
            return Err(invalid(
                "At least one of MinSize, MaxSize or DesiredCapacity must be given.",
            ));
        }
        if !sizes.is_sorted() {
            return Err(invalid(
                "Min bound, desired capacity and max bound must be in this order.",
            ));
        }
        if before.is_none() && group.schedules.len() >= SCHEDULES_MAX {
            let message = format!("A group has at most {SCHEDULES_MAX} scheduled actions.");
            return Err(ApiError::new("LimitExceeded", message));
        }
        group.schedules.insert(name, schedule);
        Ok(())
    }

    /// DeleteScheduledAction.
    ///
    /// # Errors
    /// `ValidationError` if there is none.
    pub fn delete_schedule(&mut self, request: &DeleteSchedule) -> Result<(), ApiError> {
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        let removed = group.schedules.remove(&request.scheduled_action_name);
        removed
            .map(drop)
            .ok_or_else(|| invalid("Scheduled action name not found"))
    }

    /// DescribeScheduledActions; of all groups if none is named. Unknown names are left out.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_schedules(
        &self,
        request: &DescribeSchedules,
    ) -> Result<DescribedSchedules, ApiError> {
        let named = request.auto_scaling_group_name.as_ref();
        let names = &request.scheduled_action_names;
        let groups = self.groups.values();
        let groups = groups.filter(|group| named.is_none_or(|name| *name == group.name));
        let found = groups.flat_map(|group| group.schedules.values());
        let found = found
            .filter(|found| names.is_empty() || names.contains(&found.scheduled_action_name))
            .cloned();
        let page = paged(
            found.collect(),
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(DescribedSchedules {
            scheduled_update_group_actions: page.items,
            next_token: page.next_token,
        })
    }
}
