//! Scaling activities: what a group did and why, as operators read it.

use jiff::Timestamp;
use serde::Serialize;

use super::group::Group;

/// How many activities a group remembers. AWS keeps six weeks of them.
const KEPT: usize = 200;

/// One launch or termination.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activity {
    /// Identifier.
    pub activity_id: String,
    /// Group name.
    pub auto_scaling_group_name: String,
    /// What.
    pub description: String,
    /// Why.
    pub cause: String,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// `PreInService`, `MidLifecycleAction`, `InProgress`, `Successful`, `Failed`, `Cancelled`.
    pub status_code: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// Percent.
    pub progress: u8,
    /// JSON.
    pub details: String,
}

impl Group {
    /// Begins an activity and returns its id.
    pub(super) fn begin_activity(
        &mut self,
        id: String,
        description: String,
        cause: String,
        status_code: &'static str,
        now: Timestamp,
    ) -> String {
        self.activities.push_front(Activity {
            activity_id: id.clone(),
            auto_scaling_group_name: self.name.clone(),
            description,
            cause,
            start_time: now,
            end_time: None,
            status_code,
            status_message: None,
            progress: 0,
            details: "{}".to_owned(),
        });
        self.activities.truncate(KEPT);
        id
    }

    /// Moves an activity on; one so old that it was forgotten is left alone.
    pub(super) fn note_activity(&mut self, id: &str, status_code: &'static str, progress: u8) {
        if let Some(activity) = self.activity_mut(id) {
            activity.status_code = status_code;
            activity.progress = progress;
        }
    }

    /// Ends an activity.
    pub(super) fn end_activity(
        &mut self,
        id: &str,
        status_code: &'static str,
        message: Option<String>,
        now: Timestamp,
    ) {
        if let Some(activity) = self.activity_mut(id) {
            activity.status_code = status_code;
            activity.status_message = message;
            activity.progress = 100;
            activity.end_time = Some(now);
        }
    }

    pub(super) fn activity_mut(&mut self, id: &str) -> Option<&mut Activity> {
        self.activities.iter_mut().find(|a| a.activity_id == id)
    }
}
