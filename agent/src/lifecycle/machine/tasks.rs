//! What is known of the tasks that are to leave.

use super::*;

impl Machine {
    pub(super) fn learn_tasks(&mut self, tasks: Tasks, now: Moment, actions: &mut Vec<Action>) {
        let conditions = &mut self.world.conditions;
        // Behind a gate that is shut, an ECS agent that does not answer is no fault.
        if self.phase > Phase::Gated {
            conditions.ecs.observe(tasks.by_agent.is_ok(), now);
        }
        conditions.docker.observe(tasks.by_docker.is_ok(), now);
        let local = self.local(&tasks, now);
        let moved = self.world.tasks.as_ref() != Some(&tasks);
        self.world.tasks = Some(tasks);
        let Some(drain) = &mut self.drain else { return };
        if moved {
            drain.moved = now;
            drain.stall_told = false;
        }
        match local {
            Local::Empty => {
                drain.empty_in_a_row = drain.empty_in_a_row.saturating_add(1);
                drain.empty_since.get_or_insert(now);
            }
            Local::Left(tasks) => {
                drain.forget_seen();
                drain.disagreed = 0;
                if drain.set && drain.told.replace(tasks) != Some(tasks) {
                    actions.push(Action::Record(Entry::TasksLeft { tasks }));
                }
            }
            Local::Unknown => {
                drain.empty_in_a_row = 0;
                drain.empty_since = None;
            }
        }
    }

    /// Both sides must agree; one that has been silent for long is passed over.
    fn local(&self, tasks: &Tasks, now: Moment) -> Local {
        let conditions = &self.world.conditions;
        let by_agent = tasks.by_agent.as_ref().map(Vec::len);
        let by_docker = tasks.by_docker.as_ref().map(BTreeMap::len);
        let left = match (by_agent, by_docker) {
            (Ok(by_agent), Ok(by_docker)) => by_agent.max(by_docker),
            (Err(_), Ok(left)) if conditions.ecs.is_faulty_for(SILENCE, now) => left,
            (Ok(left), Err(_)) if conditions.docker.is_faulty_for(SILENCE, now) => left,
            (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => return Local::Unknown,
        };
        if left == 0 {
            Local::Empty
        } else {
            Local::Left(left)
        }
    }

    /// Containers of tasks run here for sure.
    pub(super) fn runs_tasks(&self) -> bool {
        let tasks = self.world.tasks.as_ref();
        let by_docker = tasks.and_then(|tasks| tasks.by_docker.as_ref().ok());
        by_docker.is_some_and(|tasks| !tasks.is_empty())
    }

    /// The tasks the ECS agent knows, if it can be asked.
    pub(super) fn by_agent(&self) -> &[AgentTask] {
        let tasks = self.world.tasks.as_ref();
        tasks
            .and_then(|tasks| tasks.by_agent.as_deref().ok())
            .unwrap_or_default()
    }

    /// Whether it matters whose the tasks are, and is not known.
    pub(super) fn needs_groups(&self, now: Moment) -> bool {
        let Some(drain) = self.drain.as_ref().filter(|drain| drain.set) else {
            return false;
        };
        let matters = self.policy.drain.stops_standalone() || self.is_stalled(now);
        matters
            && self
                .by_agent()
                .iter()
                .any(|task| !task.is_leaving() && !drain.groups.contains_key(&task.arn))
    }

    /// Standalone tasks whose time has come. DRAINING does not touch them (ECS developer guide,
    /// "container-instance-draining").
    pub(super) fn standalone_due(&self, now: Moment) -> Vec<String> {
        let due = self.standalone_ends().filter(|(_, at)| *at <= now);
        due.map(|(task, _)| task.arn.clone()).collect()
    }

    fn standalone_ends(&self) -> impl Iterator<Item = (&AgentTask, Moment)> {
        let drain = self.drain.as_ref().filter(|drain| drain.set);
        let tasks = drain.into_iter().flat_map(|drain| {
            let is_standalone = |task: &&AgentTask| {
                let group = drain.groups.get(&task.arn);
                group.is_some_and(|group| !group.is_empty() && !is_service(group))
            };
            self.by_agent()
                .iter()
                .filter(is_standalone)
                .zip(std::iter::repeat(drain.since))
        });
        tasks.filter_map(|(task, began)| {
            let after = self.policy.drain.stops_standalone_after(&task.family)?;
            Some((task, began + Duration::from_secs(after.into())))
        })
    }

    /// When something about the tasks changes by time alone.
    pub(super) fn tasks_change_at(&self) -> impl Iterator<Item = Moment> {
        let draining = self
            .drain
            .as_ref()
            .filter(|_| self.phase == Phase::Draining);
        let stall = draining.map(|drain| drain.moved + STALL);
        let standalone = draining.into_iter().flat_map(|_| self.standalone_ends());
        stall
            .into_iter()
            .chain(standalone.map(|(_, at)| at))
            .chain(self.confirms_until())
    }

    /// Tasks are left, and nothing has changed about them for long.
    pub(super) fn is_stalled(&self, now: Moment) -> bool {
        let left = self.world.tasks.as_ref().and_then(known_tasks);
        self.phase == Phase::Draining
            && left.is_some_and(|left| left > 0)
            && self
                .drain
                .as_ref()
                .is_some_and(|drain| drain.set && drain.moved + STALL <= now)
    }

    pub(super) fn tell_stall(&mut self, now: Moment, actions: &mut Vec<Action>) {
        // Not before ECS has been asked whose they are: the name is what helps.
        let was_asked = self.drain.as_ref().is_some_and(|drain| drain.asked > 0);
        let is_asking = !was_asked && self.schedule.error(Job::ReadGroups).is_none();
        if !self.is_stalled(now) || is_asking && self.needs_groups(now) {
            return;
        }
        let seconds = self
            .bounds()
            .map_or(0, |bounds| bounds.tasks.since(now).as_secs());
        let what = self.what_stalls();
        if let Some(drain) = &mut self.drain
            && !drain.stall_told
        {
            drain.stall_told = true;
            actions.push(Action::Record(Entry::Stalled { what, seconds }));
        }
    }

    /// Every group of tasks that is left, and why it may be.
    pub(super) fn what_stalls(&self) -> String {
        let Some(drain) = &self.drain else {
            return String::new();
        };
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for task in self.by_agent() {
            let group = drain.groups.get(&task.arn).map_or("", String::as_str);
            let why = match group.strip_prefix(SERVICE) {
                _ if task.is_leaving() => {
                    format!("of {} asked to stop, still running", task.family)
                }
                Some(service) => format!(
                    "of service {service} that ECS does not move (its minimum healthy percent, or no room elsewhere)"
                ),
                None if group.is_empty() => format!("of {}", task.family),
                None => format!("standalone, of {}", task.family),
            };
            *groups.entry(why).or_default() += 1;
        }
        if groups.is_empty() {
            return "containers that only Docker knows of".to_owned();
        }
        let each: Vec<String> = groups
            .into_iter()
            .map(|(why, number)| format!("{number} {why}"))
            .collect();
        each.join("; ")
    }
}

const SERVICE: &str = "service:";

fn is_service(group: &str) -> bool {
    group.starts_with(SERVICE)
}
