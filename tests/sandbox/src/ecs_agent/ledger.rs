//! What the stand-in knows of its tasks: orders in, things to do out.

use std::collections::BTreeMap;

use fleet_sandbox::node_protocol::{TaskOrder, TaskReport};
use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    Pending,
    Running,
    Stopped,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "PENDING",
            Status::Running => "RUNNING",
            Status::Stopped => "STOPPED",
        }
    }
}

/// A task and its containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) order: TaskOrder,
    pub(super) known: Status,
    pub(super) reason: Option<String>,
    pub(super) containers: BTreeMap<String, Container>,
}

/// A container of a task, as introspection shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) docker_id: String,
    pub(super) docker_name: String,
    pub(super) name: String,
    pub(super) image: String,
    #[serde(rename = "ImageID")]
    pub(super) image_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<String>,
}

/// What the control plane's word makes necessary.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Start(TaskOrder),
    Stop { task_arn: String },
}

/// What has happened to a task here.
#[derive(Debug)]
pub(super) enum Happening {
    /// A container has been made or started.
    Container(Container),
    /// All its containers run.
    Running,
    /// None of them runs any more.
    Stopped { reason: Option<String> },
    /// Its containers have been removed.
    Cleaned,
}

/// Every task the node knows, by ARN.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Ledger {
    tasks: BTreeMap<String, Task>,
}

impl Ledger {
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// Takes the control plane's whole word: a task it no longer names is to stop, as in the real
    /// agent's full sync.
    pub(super) fn accept(&mut self, orders: Vec<TaskOrder>) -> Vec<Action> {
        let mut actions = Vec::new();
        let named: Vec<String> = orders.iter().map(|order| order.task_arn.clone()).collect();
        for order in orders {
            actions.extend(self.accept_one(order));
        }
        for (task_arn, task) in &mut self.tasks {
            if !named.contains(task_arn) {
                actions.extend(wind_down(task));
            }
        }
        actions
    }

    fn accept_one(&mut self, order: TaskOrder) -> Option<Action> {
        let wanted = order.desired_status == Status::Running.as_str();
        if let Some(task) = self.tasks.get_mut(&order.task_arn) {
            return if wanted { None } else { wind_down(task) };
        }
        let known = if wanted {
            Status::Pending
        } else {
            Status::Stopped
        };
        let task = Task {
            order: order.clone(),
            known,
            reason: None,
            containers: BTreeMap::new(),
        };
        self.tasks.insert(order.task_arn.clone(), task);
        wanted.then_some(Action::Start(order))
    }

    /// Whether the happening changes what the control plane should hear at once.
    pub(super) fn record(&mut self, task_arn: &str, happening: Happening) -> bool {
        let Some(task) = self.tasks.get_mut(task_arn) else {
            return false;
        };
        match happening {
            Happening::Container(container) => {
                task.containers.insert(container.name.clone(), container);
                false
            }
            Happening::Running => {
                task.known = Status::Running;
                true
            }
            Happening::Stopped { reason } => {
                task.known = Status::Stopped;
                task.order.desired_status = Status::Stopped.as_str().to_owned();
                task.reason = reason;
                true
            }
            Happening::Cleaned => {
                self.tasks.remove(task_arn);
                false
            }
        }
    }

    pub(super) fn reports(&self) -> Vec<TaskReport> {
        self.tasks
            .iter()
            .map(|(task_arn, task)| TaskReport {
                task_arn: task_arn.clone(),
                known_status: task.known.as_str().to_owned(),
                reason: task.reason.clone(),
            })
            .collect()
    }
}

fn wind_down(task: &mut Task) -> Option<Action> {
    if task.known == Status::Stopped || task.order.desired_status == Status::Stopped.as_str() {
        return None;
    }
    task.order.desired_status = Status::Stopped.as_str().to_owned();
    Some(Action::Stop {
        task_arn: task.order.task_arn.clone(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn order(task_arn: &str, desired_status: &str) -> TaskOrder {
        TaskOrder {
            task_arn: task_arn.to_owned(),
            desired_status: desired_status.to_owned(),
            family: "web".to_owned(),
            revision: 1,
            containers: Vec::new(),
        }
    }

    fn summary(actions: &[Action]) -> Vec<String> {
        actions
            .iter()
            .map(|action| match action {
                Action::Start(order) => format!("start {}", order.task_arn),
                Action::Stop { task_arn } => format!("stop {task_arn}"),
            })
            .collect()
    }

    #[test]
    fn an_order_is_acted_upon_once() {
        let mut ledger = Ledger::default();
        let started = ledger.accept(vec![order("a", "RUNNING")]);
        assert_eq!(summary(&started), ["start a"]);
        assert!(ledger.accept(vec![order("a", "RUNNING")]).is_empty());
        let stopped = ledger.accept(vec![order("a", "STOPPED")]);
        assert_eq!(summary(&stopped), ["stop a"]);
        assert!(ledger.accept(vec![order("a", "STOPPED")]).is_empty());
    }

    #[test]
    fn a_task_that_is_no_longer_named_stops() {
        let mut ledger = Ledger::default();
        ledger.accept(vec![order("a", "RUNNING"), order("b", "RUNNING")]);
        let actions = ledger.accept(vec![order("b", "RUNNING")]);
        assert_eq!(summary(&actions), ["stop a"]);
        ledger.record("a", Happening::Stopped { reason: None });
        assert!(ledger.accept(vec![order("b", "RUNNING")]).is_empty());
    }

    #[test]
    fn a_task_stopped_before_it_began_is_reported_stopped() {
        let mut ledger = Ledger::default();
        assert!(ledger.accept(vec![order("a", "STOPPED")]).is_empty());
        assert_eq!(ledger.reports()[0].known_status, "STOPPED");
    }

    #[test]
    fn only_a_changed_status_is_news() {
        let mut ledger = Ledger::default();
        ledger.accept(vec![order("a", "RUNNING")]);
        assert!(ledger.record("a", Happening::Running));
        let reason = Some("Essential container in task exited".to_owned());
        assert!(ledger.record(
            "a",
            Happening::Stopped {
                reason: reason.clone()
            }
        ));
        assert_eq!(ledger.reports()[0].reason, reason);
        assert!(!ledger.record("a", Happening::Cleaned));
        assert!(ledger.reports().is_empty());
    }
}
