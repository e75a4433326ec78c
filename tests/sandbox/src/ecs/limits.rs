//! ECS's request limits: a bucket of tokens for each class of operations, shared by all callers of
//! an account in a region (ECS API reference, "Request throttling for the Amazon ECS API").

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api_error::ApiError;

/// Tokens are counted in thousandths, so that they fill up by whole numbers every millisecond.
const TOKEN: i64 = 1_000;

/// A class of operations that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    ResourceModify,
    ResourceRead,
    Agent,
    ServiceRead,
}

impl Class {
    fn of(operation: &str) -> Option<Self> {
        match operation {
            "UpdateContainerInstancesState"
            | "PutAttributes"
            | "DeleteAttributes"
            | "StopTask"
            | "RunTask"
            | "DeregisterContainerInstance"
            | "UpdateContainerAgent"
            | "ExecuteCommand" => Some(Self::ResourceModify),
            "DescribeContainerInstances"
            | "DescribeTasks"
            | "ListTasks"
            | "ListContainerInstances"
            | "ListAttributes" => Some(Self::ResourceRead),
            "RegisterContainerInstance" => Some(Self::Agent),
            "DescribeServices" | "ListServices" => Some(Self::ServiceRead),
            _ => None,
        }
    }

    /// Tokens that a full bucket holds, and that come back in a second.
    fn burst_and_rate(self) -> (i64, i64) {
        match self {
            Self::ResourceModify => (100, 40),
            Self::ResourceRead | Self::ServiceRead => (100, 20),
            Self::Agent => (200, 120),
        }
    }
}

/// The buckets of one account and region, full at first.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    buckets: BTreeMap<Class, Bucket>,
    refused: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Bucket {
    /// Thousandths.
    tokens: i64,
    filled: Timestamp,
}

impl Limits {
    /// Takes a token for a call. Operations without a bucket here are never refused.
    ///
    /// # Errors
    /// `ThrottlingException` if the bucket is empty.
    pub fn take(&mut self, operation: &str, now: Timestamp) -> Result<(), ApiError> {
        let Some(class) = Class::of(operation) else {
            return Ok(());
        };
        let (burst, rate) = class.burst_and_rate();
        let bucket = self.buckets.entry(class).or_insert(Bucket {
            tokens: burst * TOKEN,
            filled: now,
        });
        bucket.fill(burst, rate, now);
        if bucket.tokens < TOKEN {
            *self.refused.entry(operation.to_owned()).or_default() += 1;
            return Err(ApiError::new("ThrottlingException", "Rate exceeded"));
        }
        bucket.tokens -= TOKEN;
        Ok(())
    }

    /// How many calls of each operation were refused.
    pub fn refused(&self) -> &BTreeMap<String, u64> {
        &self.refused
    }
}

impl Bucket {
    fn fill(&mut self, burst: i64, rate: i64, now: Timestamp) {
        // A token a second is a thousandth of one a millisecond. What is left of a millisecond is
        // kept for the next time; a clock that goes back fills nothing.
        let elapsed = now.as_millisecond() - self.filled.as_millisecond();
        if elapsed <= 0 {
            return;
        }
        let gained = elapsed.saturating_mul(rate);
        self.tokens = self.tokens.saturating_add(gained).min(burst * TOKEN);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn taken(limits: &mut Limits, operation: &str, now: Timestamp) -> usize {
        (0..1_000)
            .take_while(|_| limits.take(operation, now).is_ok())
            .count()
    }

    #[test]
    fn each_class_has_its_burst_and_then_its_rate() {
        let mut limits = Limits::default();
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        for (operation, burst, rate) in [
            ("StopTask", 100, 40),
            ("ListTasks", 100, 20),
            ("RegisterContainerInstance", 200, 120),
            ("DescribeServices", 100, 20),
        ] {
            assert_eq!(taken(&mut limits, operation, now), burst, "{operation}");
            now += SignedDuration::from_secs(1);
            assert_eq!(taken(&mut limits, operation, now), rate, "{operation}");
            now += SignedDuration::from_secs(3_600);
            assert_eq!(taken(&mut limits, operation, now), burst, "{operation}");
        }
    }

    #[test]
    fn operations_of_a_class_share_a_bucket_and_others_have_none() {
        let mut limits = Limits::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        taken(&mut limits, "PutAttributes", now);
        let refused = limits
            .take("UpdateContainerInstancesState", now)
            .unwrap_err();
        assert_eq!(
            (
                refused.status,
                refused.code.as_str(),
                refused.message.as_str()
            ),
            (400, "ThrottlingException", "Rate exceeded")
        );
        assert_eq!(limits.refused()["UpdateContainerInstancesState"], 1);
        limits.take("ListTasks", now).unwrap();
        assert_eq!(taken(&mut limits, "DescribeClusters", now), 1_000);
    }

    #[test]
    fn calls_at_the_rate_are_never_refused_however_they_fall() {
        let mut limits = Limits::default();
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        taken(&mut limits, "ListTasks", now);
        for _ in 0..1_000 {
            // 20 a second, looked at between milliseconds, too.
            for step in [16_600, 16_700, 16_700] {
                now += SignedDuration::from_micros(step);
                if step == 16_600 {
                    assert!(limits.take("ListTasks", now).is_err());
                }
            }
            limits.take("ListTasks", now).unwrap();
            assert!(limits.take("ListTasks", now).is_err());
        }
    }
}
