//! What EBS takes of a volume (EBS guide, "Amazon EBS volume types"; the newer, larger bounds of gp3).

use fleet_agent_config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{shapes, wire};

/// The root volume of the ECS-optimized AMI, GiB: a smaller one does not launch.
const ROOT_MIN: u32 = 30;
/// Room for a few images, GiB.
const DOCKER_MIN: u32 = 8;

/// A volume that each node has of its own, deleted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// GiB.
    pub gib: u32,
    /// Its type.
    pub kind: VolumeKind,
    /// I/O operations a second; the type's own when absent.
    pub iops: Option<u32>,
    /// MiB a second, of gp3 alone; 125 when absent.
    pub throughput_mib: Option<u32>,
    /// Whether EBS encrypts it.
    pub encrypted: bool,
    /// With this KMS key: id, ARN or alias. The account's own for EBS when absent.
    pub kms_key: Option<String>,
}

/// What a file has that says nothing of it.
impl Default for Volume {
    fn default() -> Self {
        Self {
            gib: ROOT_MIN,
            kind: VolumeKind::default(),
            iops: None,
            throughput_mib: None,
            encrypted: true,
            kms_key: None,
        }
    }
}

/// EBS's types that a node can boot from (EBS guide, "Amazon EBS volume types").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// General purpose, performance beside size.
    #[default]
    Gp3,
    /// General purpose, performance by size.
    Gp2,
    /// Provisioned IOPS.
    Io1,
    /// Provisioned IOPS, more durable.
    Io2,
}

impl VolumeKind {
    /// As EC2 writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
        }
    }
}

/// What a type takes.
struct Bounds {
    /// GiB.
    most_gib: u32,
    /// I/O operations a second, where they can be set.
    iops: Option<(u32, u32)>,
    /// ... and at most so many of them for each GiB.
    iops_per_gib: u32,
}

const fn bounds(kind: VolumeKind) -> Bounds {
    match kind {
        VolumeKind::Gp3 => Bounds {
            most_gib: 65_536,
            iops: Some((3_000, 80_000)),
            iops_per_gib: 500,
        },
        VolumeKind::Gp2 => Bounds {
            most_gib: 16_384,
            iops: None,
            iops_per_gib: 0,
        },
        VolumeKind::Io1 => Bounds {
            most_gib: 16_384,
            iops: Some((100, 64_000)),
            iops_per_gib: 50,
        },
        VolumeKind::Io2 => Bounds {
            most_gib: 65_536,
            iops: Some((100, 256_000)),
            iops_per_gib: 1_000,
        },
    }
}

/// gp3's, MiB a second.
const THROUGHPUT: (u32, u32) = (125, 2_000);
/// gp3's, for each MiB a second.
const IOPS_PER_THROUGHPUT: u32 = 4;
/// gp3's own, where none are set.
const IOPS_DEFAULT: u32 = 3_000;

/// The root volume at `table`, and what is wrong with it.
pub(super) fn root(table: &str, volume: wire::Volume, problems: &mut Vec<Problem>) -> Volume {
    read(table, volume, ROOT_MIN, "the image needs", problems)
}

/// The same of one that Docker has to itself.
pub(super) fn docker(table: &str, volume: wire::Volume, problems: &mut Vec<Problem>) -> Volume {
    read(
        table,
        volume,
        DOCKER_MIN,
        "images and containers need",
        problems,
    )
}

fn read(
    table: &str,
    volume: wire::Volume,
    least: u32,
    why: &str,
    problems: &mut Vec<Problem>,
) -> Volume {
    let mut wrong = |key: &str, why: String| {
        problems.push(Problem::new(format!("{table}.{key}"), why));
    };
    let kind = volume.kind;
    let bounds = bounds(kind);
    let name = kind.as_str();
    let gib = volume.size_gib.unwrap_or(ROOT_MIN);
    let most = bounds.most_gib;
    let is_sized = (least..=most).contains(&gib);
    if !is_sized {
        wrong(
            "size_gib",
            format!("{gib} is outside {least} to {most}: {why} that much, and {name} has no more"),
        );
    }
    match (volume.iops, bounds.iops) {
        (None, Some(_)) if matches!(kind, VolumeKind::Io1 | VolumeKind::Io2) => {
            wrong("iops", format!("is missing: EBS has no default for {name}"));
        }
        (Some(_), None) => wrong(
            "iops",
            format!("is not for {name}, whose size decides: take gp3"),
        ),
        (Some(iops), Some((least, most))) if !(least..=most).contains(&iops) => {
            wrong(
                "iops",
                format!("{iops} is outside {least} to {most} of {name}"),
            );
        }
        (Some(iops), Some(_)) if is_sized && iops > gib.saturating_mul(bounds.iops_per_gib) => {
            let each = bounds.iops_per_gib;
            wrong(
                "iops",
                format!("{iops} is more than {name} gives {gib} GiB: {each} for each"),
            );
        }
        _ => {}
    }
    if let Some(throughput) = volume.throughput_mib {
        let (least, most) = THROUGHPUT;
        let iops = volume.iops.unwrap_or(IOPS_DEFAULT);
        if kind != VolumeKind::Gp3 {
            wrong(
                "throughput_mib",
                format!("is for gp3 alone, not for {name}"),
            );
        } else if !(least..=most).contains(&throughput) {
            wrong(
                "throughput_mib",
                format!("{throughput} is outside {least} to {most}"),
            );
        } else if throughput.saturating_mul(IOPS_PER_THROUGHPUT) > iops {
            let needed = throughput.saturating_mul(IOPS_PER_THROUGHPUT);
            wrong(
                "throughput_mib",
                format!("{throughput} needs {needed} iops, and there are {iops}"),
            );
        }
    }
    let encrypted = volume.encrypted.unwrap_or(true);
    if let Some(key) = &volume.kms_key {
        if !encrypted {
            wrong("kms_key", "is set, and `encrypted` is false".to_owned());
        }
        if let Some(why) = shapes::kms_key(key) {
            wrong("kms_key", why);
        }
    }
    Volume {
        gib,
        kind,
        iops: volume.iops,
        throughput_mib: volume.throughput_mib,
        encrypted,
        kms_key: volume.kms_key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    fn of(text: &str) -> String {
        let volume = toml::from_str(text).expect("a volume");
        let mut problems = Vec::new();
        let _ = root("v", volume, &mut problems);
        told(&problems)
    }

    #[test]
    fn what_ebs_takes_is_taken() {
        for text in [
            "",
            "size_gib = 65536",
            "type = \"gp2\"\nsize_gib = 16384",
            "size_gib = 32\niops = 16000\nthroughput_mib = 1000",
            "type = \"io2\"\niops = 30000",
            "type = \"io1\"\niops = 1500",
            "kms_key = \"alias/nodes\"",
            "encrypted = false",
        ] {
            assert_eq!(of(text), "", "{text}");
        }
    }

    #[test]
    fn dockers_own_may_be_smaller_than_the_images() {
        let mut problems = Vec::new();
        for (gib, expected) in [(8, 0), (7, 1)] {
            let volume = wire::Volume {
                size_gib: Some(gib),
                ..wire::Volume::default()
            };
            let _ = docker("v", volume, &mut problems);
            assert_eq!(problems.len(), expected, "{gib}");
        }
    }

    #[test]
    fn what_ebs_would_refuse_is_refused_with_its_bounds() {
        for (text, part) in [
            ("size_gib = 29", "v.size_gib: 29 is outside 30 to 65536"),
            ("type = \"gp2\"\nsize_gib = 16385", "30 to 16384"),
            ("type = \"gp2\"\niops = 3000", "v.iops: is not for gp2"),
            ("type = \"io1\"", "v.iops: is missing"),
            (
                "type = \"io1\"\niops = 1501",
                "io1 gives 30 GiB: 50 for each",
            ),
            (
                "iops = 2999",
                "v.iops: 2999 is outside 3000 to 80000 of gp3",
            ),
            ("iops = 15001", "gp3 gives 30 GiB: 500 for each"),
            (
                "throughput_mib = 124",
                "v.throughput_mib: 124 is outside 125 to 2000",
            ),
            (
                "throughput_mib = 751",
                "751 needs 3004 iops, and there are 3000",
            ),
            (
                "type = \"io2\"\niops = 500\nthroughput_mib = 200",
                "is for gp3 alone",
            ),
            (
                "encrypted = false\nkms_key = \"alias/nodes\"",
                "`encrypted` is false",
            ),
            ("kms_key = \"nodes\"", "is not a KMS key"),
        ] {
            assert!(of(text).contains(part), "{text}: {}", of(text));
        }
    }
}
