//! Where the time comes from.
#![allow(
    clippy::disallowed_methods,
    reason = "the one edge that reads the clocks"
)]

use std::{rc::Rc, time::Duration};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::moment::Moment;

/// Both clocks: the steady one for decisions, the wall's for what is shown or kept on disk.
#[derive(Clone)]
pub(crate) struct Clock {
    /// How many seconds of the steady clock pass in one of the wall's: 1, except in tests.
    pace: u32,
    now: Rc<dyn Fn() -> Moment>,
    wall: Rc<dyn Fn() -> Timestamp>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl Clock {
    /// At a `pace` above 1, all that waits for time to pass waits that much shorter. Limits of calls
    /// stay what they are.
    pub(crate) fn system(pace: u32) -> Self {
        Self {
            pace,
            now: Rc::new(move || boot_time(pace)),
            wall: Rc::new(Timestamp::now),
        }
    }

    /// A clock that follows tokio's, which tests pause.
    #[cfg(test)]
    pub(crate) fn paused() -> Self {
        let start = tokio::time::Instant::now();
        let elapsed = move || start.elapsed();
        Self {
            pace: 1,
            now: Rc::new(move || Moment::from_millis(1_000_000) + elapsed()),
            wall: Rc::new(move || {
                Timestamp::from_second(1_763_712_000).expect("in range")
                    + jiff::SignedDuration::try_from(elapsed()).expect("in range")
            }),
        }
    }

    /// One node's clocks in a simulation.
    #[cfg(feature = "simulation")]
    pub(crate) fn simulated(
        now: impl Fn() -> Moment + 'static,
        wall: impl Fn() -> Timestamp + 'static,
    ) -> Self {
        Self {
            pace: 1,
            now: Rc::new(now),
            wall: Rc::new(wall),
        }
    }

    /// This wall time, this long after the machine booted.
    #[cfg(test)]
    pub(crate) fn booted(uptime: Duration, wall: Timestamp) -> Self {
        Self {
            pace: 1,
            now: Rc::new(move || at_uptime(uptime)),
            wall: Rc::new(move || wall),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        (self.now)()
    }

    /// Until so much of the steady clock's time has passed.
    pub(crate) async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time / self.pace).await;
    }

    pub(crate) fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// A moment of the past in the wall's time.
    pub(crate) fn wall_at(&self, moment: Moment) -> Timestamp {
        let ago = self.now().since(moment) / self.pace;
        jiff::SignedDuration::try_from(ago)
            .ok()
            .and_then(|ago| self.wall().checked_sub(ago).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The moment of a wall time of the past; one that seems to be still to come is now.
    pub(crate) fn moment_at(&self, wall: Timestamp) -> Moment {
        let ago = Duration::try_from(self.wall().duration_since(wall)).unwrap_or_default();
        self.now().before(ago * self.pace)
    }

    /// The moment of a wall time, past or to come.
    pub(crate) fn moment_of(&self, wall: Timestamp) -> Moment {
        match Duration::try_from(wall.duration_since(self.wall())) {
            Ok(ahead) => self.now() + ahead * self.pace,
            Err(_) => self.moment_at(wall),
        }
    }

    /// A moment, past or to come, in the wall's time.
    pub(crate) fn wall_of(&self, moment: Moment) -> Timestamp {
        let ahead = moment.since(self.now()) / self.pace;
        if ahead.is_zero() {
            return self.wall_at(moment);
        }
        jiff::SignedDuration::try_from(ahead)
            .ok()
            .and_then(|ahead| self.wall().checked_add(ahead).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

/// Where the agent's time begins at boot. Moments cannot be negative, and one restored from disk may
/// lie before the boot: were that cut off at zero, a reboot would give a drain its whole time again.
const BOOT: Moment = Moment::from_millis(10 * 365 * 86_400_000);

fn boot_time(pace: u32) -> Moment {
    // CLOCK_BOOTTIME cannot fail on any kernel this binary runs on (2.6.39 on).
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or_else(
        |_| at_uptime(Duration::ZERO),
        |time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
            let nanos = u64::try_from(time.tv_nsec()).unwrap_or_default();
            at_uptime((Duration::from_secs(seconds) + Duration::from_nanos(nanos)) * pace)
        },
    )
}

fn at_uptime(uptime: Duration) -> Moment {
    BOOT + uptime
}
