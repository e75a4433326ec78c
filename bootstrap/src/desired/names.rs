//! Names of AWS resources, made from those in the file. The same file always gives the same names:
//! by them an environment is found again.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::spec::Direction;

/// ECS cluster and capacity provider, Auto Scaling group, security group, CloudWatch alarm.
const LONG: usize = 255;
/// CreateLaunchTemplate.
const LAUNCH_TEMPLATE: usize = 128;
/// CreateRole. Instance profiles may be longer, but one name for both is easier to find.
const ROLE: usize = 64;
/// CreateBucket.
const BUCKET: usize = 63;
/// On launch templates: the bucket that the environment has. By it `down` finds a bucket that the file
/// does not ask for any more.
pub(crate) const BUCKET_TAG: &str = "fleet:bucket";
/// Hexadecimal digits of hash at the end of a cut name: 48 bits.
const HASH_DIGITS: usize = 12;

/// `NAME-ENVIRONMENT`.
pub(super) fn cluster(fleet: &str, environment: &str) -> String {
    joined(&[fleet, environment], LONG)
}

/// Of the bucket. All of AWS share one space of names, hence the hash of what nobody else has; none of
/// those that S3 keeps for itself begins or ends so (S3 guide, "General purpose bucket naming rules").
pub(super) fn bucket(fleet: &str, environment: &str, region: &str, owner: &str) -> String {
    let name = format!("fleet-{fleet}-{environment}-{region}");
    let name = name.to_ascii_lowercase().replace('_', "-");
    hashed(&name, &[fleet, environment, region, owner], BUCKET)
}

/// The names of one group's resources.
#[derive(Debug)]
pub(super) struct GroupNames {
    /// Auto Scaling group, capacity provider and security group.
    pub(super) long: String,
    pub(super) launch_template: String,
    /// Role and instance profile; IAM is global, hence the region.
    pub(super) role: String,
    pub(super) parameter: String,
    pub(super) alarms: BTreeMap<Direction, String>,
}

/// Name of the scaling policy of a group that scales it this way.
pub(crate) fn scaling_policy(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "fleet-scale-out",
        Direction::In => "fleet-scale-in",
    }
}

impl GroupNames {
    pub(super) fn new(fleet: &str, environment: &str, group: &str, region: &str) -> Self {
        let parts = [fleet, environment, group];
        Self {
            long: joined(&parts, LONG),
            launch_template: joined(&parts, LAUNCH_TEMPLATE),
            role: joined(&[fleet, environment, group, region], ROLE),
            parameter: format!("/fleet/{fleet}/{environment}/{group}/agent"),
            alarms: Direction::ALL
                .map(|direction| {
                    let policy = scaling_policy(direction);
                    (
                        direction,
                        joined(&[fleet, environment, group, policy], LONG),
                    )
                })
                .into(),
        }
    }
}

/// The parts with dashes between, cut to `limit` bytes with a hash of all of them at the end. The
/// hash tells parts from each other, so that two cut names differ even where dashes moved.
fn joined(parts: &[&str], limit: usize) -> String {
    let full = parts.join("-");
    if full.len() <= limit {
        return full;
    }
    hashed(&full, parts, limit)
}

/// As much of `full` as there is room for, and the hash of all parts.
fn hashed(full: &str, parts: &[&str], limit: usize) -> String {
    let hash: String = Sha256::digest(parts.join("\0"))
        .iter()
        .take(HASH_DIGITS / 2)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let kept = full.floor_char_boundary(full.len().min(limit - HASH_DIGITS - 1));
    format!("{}-{hash}", &full[..kept])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_kept_and_long_ones_end_in_a_hash() {
        let names = GroupNames::new("shop", "dev", "web", "eu-central-1");
        assert_eq!(cluster("shop", "dev"), "shop-dev");
        assert_eq!(names.long, "shop-dev-web");
        assert_eq!(names.launch_template, "shop-dev-web");
        assert_eq!(names.role, "shop-dev-web-eu-central-1");
        assert_eq!(names.parameter, "/fleet/shop/dev/web/agent");
        assert_eq!(names.alarms[&Direction::In], "shop-dev-web-fleet-scale-in");

        let long = GroupNames::new("shop", "dev", &"w".repeat(128), "eu-central-1");
        assert_eq!(long.long.len(), 137);
        assert_eq!(long.launch_template.len(), 128);
        assert_eq!(
            long.role,
            "shop-dev-wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww-b3634278efde"
        );
    }

    #[test]
    fn buckets_are_called_as_s3_wants_it_and_as_nobody_else_s() {
        let name = bucket("Shop_1", "dev", "eu-central-1", "f-0123456789abcdef");
        assert_eq!(name, "fleet-shop-1-dev-eu-central-1-21440cb121e2");
        for other in [
            bucket("Shop-1", "dev", "eu-central-1", "f-0123456789abcdef"),
            bucket("Shop_1", "dev", "eu-central-1", "f-0123456789abcdee"),
            bucket("Shop_1", "dev", "eu-central-2", "f-0123456789abcdef"),
        ] {
            assert_ne!(name, other);
        }
        let long = bucket(&"W".repeat(128), "dev", "eu-central-1", "f-0");
        assert_eq!(long.len(), 63);
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(
            long.bytes().all(is_allowed) && long.starts_with("fleet-w"),
            "{long}"
        );
    }

    fn part() -> impl Strategy<Value = String> {
        "[A-Za-z0-9][A-Za-z0-9_-]{0,80}"
    }

    proptest! {
        #[test]
        fn names_fit_are_stable_and_hold_only_what_was_given(
            parts in prop::collection::vec(part(), 2..5),
            limit in 64..256_usize,
        ) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let name = joined(&parts, limit);
            prop_assert!(name.len() <= limit);
            prop_assert_eq!(&name, &joined(&parts, limit));
            prop_assert!(name.starts_with(&parts.join("-")[..limit.min(parts.join("-").len()) / 2]));
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        }

        #[test]
        fn cut_names_never_collide(
            a in prop::collection::vec(part(), 3),
            b in prop::collection::vec(part(), 3),
            same_beginning in "[a-z]{60,80}",
        ) {
            prop_assume!(a != b);
            let name = |parts: &[String]| {
                joined(&[&same_beginning, &parts[0], &parts[1], &parts[2]], 64)
            };
            prop_assert_ne!(name(&a), name(&b));
        }

        #[test]
        fn a_dash_that_moves_between_cut_parts_shows(
            a in "[a-z]{40}", b in "[a-z]{10}", c in "[a-z]{40}",
        ) {
            let (ab, bc) = (format!("{a}-{b}"), format!("{b}-{c}"));
            prop_assert_ne!(joined(&[&ab, &c], 64), joined(&[&a, &bc], 64));
        }
    }
}
