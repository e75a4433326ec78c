//! What befalls a machine from outside: power, spot notices, maintenance, a metadata service in
//! trouble. Pure; whoever asks carries out what is due.

use jiff::{SignedDuration, Timestamp};

use crate::notices::{ImdsFault, LifeCycle, MaintenanceCode, ScheduledEvent, SpotAction};

/// How long a maintenance window is, hours. AWS shows windows of minutes to hours.
const WINDOW_HOURS: i64 = 2;

/// What befalls one machine.
#[derive(Debug, Default)]
pub(crate) struct Circumstances {
    /// Stopped by EC2; its disk is kept.
    pub(crate) stopped: bool,
    /// Auto Scaling does not look while it is stopped, as with its health checks suspended.
    pub(crate) unnoticed: bool,
    pub(crate) life_cycle: LifeCycle,
    pub(crate) imds: ImdsFault,
    /// Tokens of an earlier generation are unknown.
    pub(crate) token_generation: u32,
    spot: Option<SpotNotice>,
    rebalance: Option<Timestamp>,
    maintenance: Vec<Maintenance>,
}

/// A notice that EC2 takes the machine back.
#[derive(Debug)]
struct SpotNotice {
    action: SpotAction,
    at: Timestamp,
    /// It stays to be read until the machine is off.
    carried_out: bool,
}

/// A scheduled event.
#[derive(Debug)]
struct Maintenance {
    code: MaintenanceCode,
    event_id: String,
    not_before: Timestamp,
    state: EventState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventState {
    Active,
    Canceled,
    Completed,
}

/// What EC2 does to a machine when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Reboot,
    Stop,
    Terminate,
}

impl Circumstances {
    /// A machine that nothing has befallen yet.
    pub(crate) fn bought(life_cycle: LifeCycle) -> Self {
        Self {
            life_cycle,
            ..Self::default()
        }
    }

    /// EC2 takes the machine back at `at`. Only spot machines meet with that.
    pub(crate) fn give_spot_notice(&mut self, action: SpotAction, at: Timestamp) {
        self.life_cycle = LifeCycle::Spot;
        self.spot = Some(SpotNotice {
            action,
            at,
            carried_out: false,
        });
    }

    /// EC2 expects to take the machine back sooner than others.
    pub(crate) fn recommend_rebalance(&mut self, now: Timestamp) {
        self.life_cycle = LifeCycle::Spot;
        self.rebalance = Some(now);
    }

    /// EC2 schedules an event.
    pub(crate) fn schedule(
        &mut self,
        code: MaintenanceCode,
        event_id: String,
        not_before: Timestamp,
    ) {
        self.maintenance.push(Maintenance {
            code,
            event_id,
            not_before,
            state: EventState::Active,
        });
    }

    /// EC2 cancels every event that has not begun; how many.
    pub(crate) fn cancel_maintenance(&mut self) -> usize {
        let active = |event: &&mut Maintenance| event.state == EventState::Active;
        let mut canceled = 0;
        for event in self.maintenance.iter_mut().filter(active) {
            event.state = EventState::Canceled;
            canceled += 1;
        }
        canceled
    }

    /// EC2 has stopped the machine: a notice of that has come true.
    pub(super) fn powered_off(&mut self) {
        self.stopped = true;
        self.spot = None;
        self.rebalance = None;
    }

    /// The machine runs.
    pub(super) fn powered_on(&mut self) {
        self.stopped = false;
        self.unnoticed = false;
    }

    /// When [`Circumstances::due`] has something next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let spot = self.spot.iter().filter(|notice| !notice.carried_out);
        let events = self.maintenance.iter();
        let events = events.filter(|event| event.state == EventState::Active);
        let spot = spot.map(|notice| notice.at);
        spot.chain(events.map(|event| event.not_before)).min()
    }

    /// What EC2 does by `now`, each once; the worst of it if it is several things.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Due> {
        let mut due = None;
        if let Some(notice) = &mut self.spot
            && !notice.carried_out
            && notice.at <= now
        {
            notice.carried_out = true;
            due = Some(match notice.action {
                SpotAction::Terminate => Due::Terminate,
                SpotAction::Stop | SpotAction::Hibernate => Due::Stop,
            });
        }
        for event in &mut self.maintenance {
            if event.state == EventState::Active && event.not_before <= now {
                event.state = EventState::Completed;
                due = due.max(event.code.act());
            }
        }
        due
    }

    /// `spot/instance-action`: action and time.
    pub(super) fn spot_action(&self) -> Option<(String, String)> {
        let notice = self.spot.as_ref()?;
        Some((notice.action.as_str().to_owned(), rfc3339(notice.at)))
    }

    /// `events/recommendations/rebalance`: when it was given.
    pub(super) fn rebalance(&self) -> Option<String> {
        self.rebalance.map(rfc3339)
    }

    /// `events/maintenance/scheduled`. A canceled event is still there, and says so; a completed
    /// one is history.
    pub(super) fn scheduled(&self) -> Vec<ScheduledEvent> {
        let events = self.maintenance.iter();
        let events = events.filter(|event| event.state != EventState::Completed);
        events.map(Maintenance::entry).collect()
    }

    /// `events/maintenance/history`.
    pub(super) fn history(&self) -> Vec<ScheduledEvent> {
        let events = self.maintenance.iter();
        let events = events.filter(|event| event.state != EventState::Active);
        events.map(Maintenance::entry).collect()
    }
}

impl MaintenanceCode {
    /// What the event does to a machine on EBS when it begins: one whose host retires is stopped.
    fn act(self) -> Option<Due> {
        match self {
            Self::InstanceReboot | Self::SystemReboot => Some(Due::Reboot),
            Self::InstanceRetirement | Self::InstanceStop => Some(Due::Stop),
            Self::SystemMaintenance => None,
        }
    }
}

impl Maintenance {
    fn entry(&self) -> ScheduledEvent {
        let (state, mark) = match self.state {
            EventState::Active => ("active", ""),
            EventState::Canceled => ("canceled", "[Canceled] "),
            EventState::Completed => ("completed", "[Completed] "),
        };
        ScheduledEvent {
            not_before: gmt(self.not_before),
            code: self.code.as_str().to_owned(),
            description: format!("{mark}{}", self.code.description()),
            event_id: self.event_id.clone(),
            not_after: gmt(self.not_before + SignedDuration::from_hours(WINDOW_HOURS)),
            state: state.to_owned(),
        }
    }
}

/// As the metadata service writes the times of notices: whole seconds.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As it writes those of maintenance.
fn gmt(time: Timestamp) -> String {
    time.strftime("%d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }

    #[test]
    fn a_spot_notice_is_carried_out_once_and_stays_until_the_machine_is_off() {
        let mut machine = Circumstances::default();
        machine.give_spot_notice(SpotAction::Stop, at("15:02:00"));
        assert_eq!(machine.life_cycle, LifeCycle::Spot);
        assert_eq!(machine.next_deadline(), Some(at("15:02:00")));
        assert_eq!(machine.due(at("15:01:59")), None);
        assert_eq!(machine.due(at("15:02:00")), Some(Due::Stop));
        assert_eq!(machine.due(at("15:02:01")), None);
        assert_eq!(machine.next_deadline(), None);
        let notice = ("stop".to_owned(), "2026-11-21T15:02:00Z".to_owned());
        assert_eq!(machine.spot_action(), Some(notice));
        machine.powered_off();
        machine.powered_on();
        assert_eq!(machine.spot_action(), None);
        assert_eq!(machine.life_cycle, LifeCycle::Spot);
    }

    #[test]
    fn maintenance_is_written_as_aws_writes_it() {
        let mut machine = Circumstances::default();
        let code = MaintenanceCode::SystemReboot;
        machine.schedule(code, "instance-event-1".to_owned(), at("15:04:05"));
        assert_eq!(
            serde_json::to_string(&machine.scheduled()).unwrap(),
            "[{\"NotBefore\":\"21 Nov 2026 15:04:05 GMT\",\"Code\":\"system-reboot\",\
             \"Description\":\"scheduled reboot\",\"EventId\":\"instance-event-1\",\
             \"NotAfter\":\"21 Nov 2026 17:04:05 GMT\",\"State\":\"active\"}]"
        );
    }

    #[test]
    fn a_canceled_event_says_so_and_does_nothing() {
        let mut machine = Circumstances::default();
        let code = MaintenanceCode::InstanceStop;
        machine.schedule(code, "instance-event-1".to_owned(), at("15:04:05"));
        assert_eq!(machine.cancel_maintenance(), 1);
        assert_eq!(machine.cancel_maintenance(), 0);
        assert_eq!(machine.due(at("16:00:00")), None);
        assert_eq!(machine.scheduled()[0].state, "canceled");
        assert_eq!(machine.history(), machine.scheduled());
    }

    #[test]
    fn an_event_that_has_begun_is_history() {
        let mut machine = Circumstances::default();
        for code in [
            MaintenanceCode::InstanceReboot,
            MaintenanceCode::InstanceRetirement,
            MaintenanceCode::SystemMaintenance,
        ] {
            machine.schedule(code, "instance-event-1".to_owned(), at("15:04:05"));
        }
        assert_eq!(machine.due(at("15:04:05")), Some(Due::Stop));
        assert_eq!(machine.due(at("15:04:06")), None);
        assert_eq!(machine.scheduled(), []);
        assert_eq!(machine.history()[0].state, "completed");
        let text = "[Completed] scheduled reboot";
        assert_eq!(machine.history()[0].description, text);
    }
}
