//! What a single value must look like. Each function says what is wrong with a value and what to
//! do, or nothing when AWS would take it.

use std::net::{IpAddr, Ipv6Addr};

use fleet_agent_config::secrets;

/// A fleet's, environment's or group's name is the value of an ECS attribute and of tags; attributes
/// are the narrower of the two (ECS PutAttributes).
const NAME_MAX: usize = 128;

/// A name that goes into the names of clusters, roles, groups and parameters: the characters are
/// those that all of them take (CreateCluster, CreateRole, CreateLaunchTemplate, PutParameter).
pub(super) fn name(value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if value.is_empty() {
        Some("is missing: fill in a short name of letters, digits, - and _".to_owned())
    } else if let Some(bad) = value.chars().find(|c| !allowed(*c)) {
        Some(format!(
            "`{value}` holds `{bad}`: AWS takes only letters, digits, - and _ in the names made from it"
        ))
    } else if !value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some(format!("`{value}` must begin with a letter or digit"))
    } else if value.len() > NAME_MAX {
        Some(format!(
            "is {} characters long: an ECS attribute holds at most {NAME_MAX}",
            value.len()
        ))
    } else {
        None
    }
}

/// `fleet.name` begins every derived name, so it must not begin as AWS's own names do.
pub(super) fn fleet_name(value: &str) -> Option<String> {
    /// Capacity providers must not begin so, in any case (CreateCapacityProvider); nor clusters,
    /// for one name all over.
    const RESERVED: &[&str] = &["aws", "ecs", "fargate"];

    let lower = value.to_ascii_lowercase();
    name(value)
        .or_else(|| {
            let prefix = RESERVED.iter().find(|prefix| lower.starts_with(**prefix))?;
            Some(format!(
                "`{value}` begins with `{prefix}`, which AWS keeps for its own capacity providers: take another name"
            ))
        })
        .or_else(|| {
            (lower == "sg" || lower.starts_with("sg-")).then(|| {
                format!(
                    "`{value}` would make security groups named `sg-...`, which EC2 refuses: take another name"
                )
            })
        })
}

/// The owner id that `init` draws.
pub(super) fn owner(value: &str) -> Option<String> {
    let hex = value.strip_prefix("f-").unwrap_or("");
    (hex.len() != 16 || !is_lower_hex(hex)).then(|| {
        let found = if value.is_empty() {
            "is missing".to_owned()
        } else {
            format!("`{value}` is no owner id")
        };
        format!("{found}: it is `f-` and 16 of 0-9 and a-f, drawn once by `fleet-bootstrap init`")
    })
}

/// An AWS region.
pub(super) fn region(value: &str) -> Option<String> {
    if value.is_empty() {
        return Some("is missing: fill in an AWS region such as eu-central-1".to_owned());
    }
    if is_region(value) {
        return None;
    }
    match value.strip_suffix(|c: char| c.is_ascii_lowercase()) {
        Some(region) if is_region(region) => Some(format!(
            "`{value}` is an availability zone, its region is `{region}`"
        )),
        Some(_) | None => Some(format!(
            "`{value}` is not an AWS region such as eu-central-1"
        )),
    }
}

/// `eu-central-1`, `us-gov-west-1`.
fn is_region(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let (Some((number, words)), true) = (parts.split_last(), parts.len() >= 3) else {
        return false;
    };
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    words.iter().all(is_word) && number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit())
}

/// An AWS account id.
pub(super) fn account(value: &str) -> Option<String> {
    if value.is_empty() {
        return Some(
            "is missing: fill in the 12 digits of its id, or leave the key out".to_owned(),
        );
    }
    (value.len() != 12 || !value.bytes().all(|b| b.is_ascii_digit()))
        .then(|| format!("`{value}` is not an account id of 12 digits"))
}

/// An EC2 id such as `subnet-0123456789abcdef0`; `kind` is what stands before the dash.
pub(crate) fn ec2_id(kind: &str, value: &str) -> Option<String> {
    let example = format!("{kind}-0123456789abcdef0");
    if value.is_empty() {
        return Some(format!("is missing: fill in an id such as {example}"));
    }
    let hex = value
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'))
        .unwrap_or("");
    // Ids made before 2016 are eight digits long.
    (!matches!(hex.len(), 8 | 17) || !is_lower_hex(hex))
        .then(|| format!("`{value}` is not an id such as {example}"))
}

/// An instance type that runs the x86_64 image.
pub(super) fn instance_type(value: &str) -> Option<String> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let Some((family, _)) = value
        .split_once('.')
        .filter(|(family, size)| is_part(family) && is_part(size))
    else {
        return Some(format!(
            "`{value}` is not an instance type such as m7i.large"
        ));
    };
    if family.starts_with("mac") {
        return Some(format!(
            "`{value}` runs macOS, not Amazon Linux: take a family such as m7i or m7a"
        ));
    }
    is_arm(family).then(|| {
        format!(
            "`{value}` is arm64 (Graviton), fleet-agent and its image are x86_64: take an Intel or AMD family such as m7i or m7a"
        )
    })
}

/// Whether types of this family earn and spend CPU credits (EC2 guide, "Burstable performance instances").
pub(super) fn is_burstable(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or_default();
    matches!(family, "t2" | "t3" | "t3a")
}

/// A KMS key: its id, its ARN, or an alias.
pub(super) fn kms_key(value: &str) -> Option<String> {
    let is_id = |id: &str| {
        let id = id.strip_prefix("mrk-").unwrap_or(id);
        id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    };
    let is_alias = |alias: &str| {
        alias.strip_prefix("alias/").is_some_and(|name| {
            let is_part = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
            !name.is_empty() && name.bytes().all(is_part)
        })
    };
    let is_arn = || {
        let parts: Vec<&str> = value.splitn(6, ':').collect();
        let [arn, _, "kms", _, _, key] = parts.as_slice() else {
            return false;
        };
        *arn == "arn" && (is_alias(key) || key.strip_prefix("key/").is_some_and(is_id))
    };
    (!is_id(value) && !is_alias(value) && !is_arn()).then(|| {
        format!("`{value}` is not a KMS key: its id, its ARN, or an alias such as alias/nodes")
    })
}

/// A managed policy's ARN, AWS's own or an account's.
pub(super) fn policy_arn(value: &str) -> Option<String> {
    let parts: Vec<&str> = value.splitn(6, ':').collect();
    let is_policy = match parts.as_slice() {
        ["arn", partition, "iam", "", owner, policy] => {
            let name = policy.strip_prefix("policy/").unwrap_or_default();
            partition.starts_with("aws")
                && (*owner == "aws" || account(owner).is_none())
                && is_iam_name(name, "+=,.@_/-")
        }
        _ => false,
    };
    (!is_policy).then(|| {
        format!("`{value}` is not a managed policy's ARN such as arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy")
    })
}

/// An IAM role's name (CreateRole: up to 64 characters).
pub(super) fn role_name(value: &str) -> Option<String> {
    let is_name = value.len() <= 64 && is_iam_name(value, "+=,.@_-");
    (!is_name).then(|| format!("`{value}` is not a role's name: not its ARN, and without its path"))
}

fn is_iam_name(value: &str, others: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    !value.is_empty() && value.chars().all(is_part)
}

/// An EC2 key pair's name (CreateKeyPair: up to 255 ASCII characters).
pub(super) fn key_pair(value: &str) -> Option<String> {
    let is_name = !value.is_empty()
        && value.len() <= 255
        && value.trim() == value
        && value.bytes().all(|b| (32..127).contains(&b));
    (!is_name).then(|| format!("`{value}` is not a key pair's name of up to 255 ASCII characters"))
}

/// `s3://BUCKET/KEY`, apart: of a general purpose bucket (S3 guide, "Bucket naming rules"), and a key of
/// what stands in an address as it is, which curl signs as S3 does.
pub(super) fn s3_object(value: &str) -> Result<(String, String), String> {
    let no_address = || format!("`{value}` is not of the form s3://BUCKET/KEY");
    let rest = value.strip_prefix("s3://").ok_or_else(no_address)?;
    let (bucket, key) = rest.split_once('/').ok_or_else(no_address)?;
    let is_edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_bucket = (3..=63).contains(&bucket.len())
        && is_edge(bucket.as_bytes().first())
        && is_edge(bucket.as_bytes().last())
        && bucket
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !bucket.contains("..")
        && bucket.parse::<IpAddr>().is_err();
    if !is_bucket {
        return Err(format!(
            "`{bucket}` is not a bucket's name: 3 to 63 lower-case letters, digits, - and ."
        ));
    }
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let is_path = |key: &str| !key.split('/').any(|part| matches!(part, "" | "." | ".."));
    if key.len() > 1024 || !key.bytes().all(is_safe) || !is_path(key) {
        return Err(format!(
            "`{key}` is not a key that is taken here: names of letters, digits, - . _ and ~ with single slashes between"
        ));
    }
    Ok((bucket.to_owned(), key.to_owned()))
}

/// Families are letters, a generation and attributes, where a `g` stands for Graviton: m7g, c6gn,
/// im4gn, but neither g5 nor m7i (EC2 guide, "Instance type naming conventions"). Two break the
/// rule: a1, the first Graviton, and p6e-gb200 with its Grace processor.
fn is_arm(family: &str) -> bool {
    let generation = family.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let attributes = generation.trim_start_matches(|c: char| c.is_ascii_digit());
    let attributes = attributes.split('-').next().unwrap_or("");
    let has_generation = generation.starts_with(|c: char| c.is_ascii_digit());
    family == "a1" || family.contains("-gb") || (has_generation && attributes.contains('g'))
}

/// Where nodes download the agent from: it stands in user data, so it holds no secret, and in a
/// shell script, so it holds nothing a shell or curl would read into it.
pub(super) fn download_url(value: &str) -> Option<String> {
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#@!&()*+,;=%[]".contains(&b);
    if value.is_empty() {
        return Some("is missing: fill in the https:// address of the agent's binary".to_owned());
    }
    if let Some(why) = secrets::literal("", value) {
        return Some(format!("{why}: user data must hold none"));
    }
    if value.contains("X-Amz-Signature=") || value.contains("&Signature=") {
        return Some(
            "is a signed address, which is a secret and expires: nodes launched later could not use it"
                .to_owned(),
        );
    }
    let parsed = value.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        Some((scheme, host(authority)?))
    });
    match parsed {
        Some(("https", _)) if value.bytes().all(is_safe) => None,
        Some(("http", host)) if value.bytes().all(is_safe) => (!is_near(host)).then(|| {
            format!(
                "is http to `{host}`: whoever is on the way could read or withhold it, so http is only for loopback, link-local and private addresses; take https"
            )
        }),
        Some(_) | None => Some(format!("`{value}` is not an https:// address")),
    }
}

/// The host in `host`, `host:port` or `[v6]:port`.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority
            .find(':')
            .map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port_ok = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let host_ok = host.parse::<Ipv6Addr>().is_ok()
        || (!host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
    (port_ok && host_ok).then_some(host)
}

/// Whether what is sent there stays on the machine or in its own network.
fn is_near(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local()
        }
        Err(_) => host == "localhost",
    }
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(value: &str) -> Option<String> {
    let is_hex = value.bytes().all(|b| b.is_ascii_hexdigit());
    (value.len() != 64 || !is_hex).then(|| {
        "is not a SHA-256 of 64 hexadecimal digits: `sha256sum fleet-agent` prints it".to_owned()
    })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(shape: impl Fn(&str) -> Option<String>, values: &[&str]) {
        for value in values {
            assert_eq!(shape(value), None, "{value}");
        }
    }

    fn refuses(shape: impl Fn(&str) -> Option<String>, values: &[(&str, &str)]) {
        for (value, part) in values {
            let message = shape(value).unwrap_or_else(|| panic!("{value} passed"));
            assert!(message.contains(part), "{value}: {message}");
        }
    }

    #[test]
    fn names() {
        takes(
            fleet_name,
            &["shop", "shop-2", "s_x", "9lives", "sgx", "my-aws"],
        );
        refuses(
            fleet_name,
            &[
                ("", "is missing"),
                ("my shop", "holds ` `"),
                ("shöp", "holds `ö`"),
                ("shop.eu", "holds `.`"),
                ("-shop", "begin with a letter"),
                ("ecs-web", "begins with `ecs`"),
                ("AWSome", "begins with `aws`"),
                ("Fargate", "begins with `fargate`"),
                ("sg", "`sg-...`"),
                ("SG-x", "`sg-...`"),
                (&"n".repeat(129), "at most 128"),
            ],
        );
    }

    #[test]
    fn ids() {
        takes(region, &["eu-central-1", "us-gov-west-1", "eu-isoe-west-1"]);
        refuses(
            region,
            &[
                ("", "is missing"),
                ("eu-central-1a", "its region is `eu-central-1`"),
                ("frankfurt", "not an AWS region"),
                ("EU-CENTRAL-1", "not an AWS region"),
                ("eu-central-12", "not an AWS region"),
            ],
        );
        takes(owner, &["f-0123456789abcdef"]);
        refuses(
            owner,
            &[
                ("", "is missing"),
                ("f-0123", "no owner id"),
                ("f-0123456789ABCDEF", "no owner id"),
            ],
        );
        takes(
            |v| ec2_id("vpc", v),
            &["vpc-12345678", "vpc-0123456789abcdef0"],
        );
        refuses(
            |v| ec2_id("vpc", v),
            &[
                ("", "is missing"),
                ("subnet-12345678", "such as vpc-"),
                ("vpc-123", "such as vpc-"),
                ("vpc12345678", "such as vpc-"),
            ],
        );
        takes(account, &["123456789012"]);
        refuses(account, &[("1234-5678-9012", "12 digits")]);
    }

    #[test]
    fn instance_types() {
        takes(
            instance_type,
            &[
                "m7i.large",
                "m7i-flex.large",
                "m5.metal",
                "g5.xlarge",
                "g4dn.xlarge",
                "gr6.4xlarge",
                "p4de.24xlarge",
                "u-6tb1.56xlarge",
                "u7i-12tb.224xlarge",
                "t3.micro",
            ],
        );
        refuses(
            instance_type,
            &[
                ("m7g.large", "Graviton"),
                ("t4g.nano", "Graviton"),
                ("c6gn.16xlarge", "Graviton"),
                ("x2gd.medium", "Graviton"),
                ("is4gen.medium", "Graviton"),
                ("im4gn.large", "Graviton"),
                ("g5g.xlarge", "Graviton"),
                ("hpc7g.4xlarge", "Graviton"),
                ("a1.large", "Graviton"),
                ("p6e-gb200.36xlarge", "Graviton"),
                ("mac2.metal", "macOS"),
                ("m7i", "not an instance type"),
                ("M7I.large", "not an instance type"),
                ("m7i.", "not an instance type"),
            ],
        );
    }

    #[test]
    fn keys() {
        takes(
            kms_key,
            &[
                "alias/nodes",
                "12345678-1234-1234-1234-123456789012",
                "mrk-1234567890abcdef1234567890abcdef",
                "arn:aws:kms:eu-central-1:123456789012:key/12345678-1234-1234-1234-123456789012",
                "arn:aws:kms:eu-central-1:123456789012:alias/nodes",
            ],
        );
        refuses(
            kms_key,
            &[
                ("", "not a KMS key"),
                ("nodes", "not a KMS key"),
                ("alias/", "not a KMS key"),
                ("arn:aws:iam::123456789012:role/x", "not a KMS key"),
            ],
        );
        takes(key_pair, &["ops", "ops of 2026"]);
        refuses(
            key_pair,
            &[
                ("", "key pair's name"),
                (" ops", "key pair's name"),
                ("öps", "key pair's name"),
            ],
        );
        takes(
            policy_arn,
            &[
                "arn:aws:iam::aws:policy/service-role/AmazonEC2RoleforSSM",
                "arn:aws-cn:iam::123456789012:policy/boundary",
            ],
        );
        refuses(
            policy_arn,
            &[
                ("", "managed policy's ARN"),
                ("AdministratorAccess", "managed policy's ARN"),
                ("arn:aws:iam::aws:role/x", "managed policy's ARN"),
                ("arn:aws:iam::me:policy/x", "managed policy's ARN"),
                ("arn:aws:iam::aws:policy/", "managed policy's ARN"),
            ],
        );
        takes(role_name, &["nodes", "team.nodes@x"]);
        refuses(
            role_name,
            &[
                ("", "not a role's name"),
                ("arn:aws:iam::123456789012:role/nodes", "not its ARN"),
                ("path/nodes", "without its path"),
            ],
        );
        assert!(is_burstable("t3a.small") && !is_burstable("m7i.large"));
    }

    #[test]
    fn download_urls() {
        takes(
            download_url,
            &[
                "https://example.com/fleet-agent-0.1.0",
                "https://example.com:8443/a?version=1",
                "http://127.0.0.1:4566/_sandbox/files/fleet-agent",
                "http://10.213.0.2:4566/_sandbox/files/fleet-agent",
                "http://169.254.170.2/a",
                "http://[fd00::1]:80/a",
                "http://localhost/a",
            ],
        );
        refuses(
            download_url,
            &[
                ("", "is missing"),
                ("http://example.com/a", "is http to `example.com`"),
                ("http://8.8.8.8/a", "is http to `8.8.8.8`"),
                ("http://10.0.0.1.example.com/a", "is http to"),
                ("ftp://example.com/a", "not an https"),
                ("example.com/a", "not an https"),
                ("https:///a", "not an https"),
                ("https://example.com:port/a", "not an https"),
                ("https://example.com/a b", "not an https"),
                ("https://example.com/$(id)", "not an https"),
                ("https://me:pw@example.com/a", "user and password"),
                ("https://me@example.com/a", "not an https"),
                (
                    "https://b.s3.amazonaws.com/a?X-Amz-Signature=00",
                    "signed address",
                ),
            ],
        );
        let object = |value: &str| s3_object(value).err();
        takes(
            object,
            &["s3://abc/d", "s3://a.b-c.1/fleet-agent/0.1.0/~x_y.bin"],
        );
        refuses(
            object,
            &[
                ("https://b.s3.amazonaws.com/a", "s3://BUCKET/KEY"),
                ("s3://abc", "s3://BUCKET/KEY"),
                ("s3://ab/d", "`ab` is not a bucket"),
                ("s3://ABC/d", "not a bucket"),
                ("s3://a..b/d", "not a bucket"),
                ("s3://abc-/d", "not a bucket"),
                ("s3://10.0.0.1/d", "not a bucket"),
                ("s3://abc/", "not a key"),
                ("s3://abc//d", "not a key"),
                ("s3://abc/../d", "not a key"),
                ("s3://abc/a b", "not a key"),
                ("s3://abc/a+b", "not a key"),
                ("s3://abc/$(id)", "not a key"),
                ("s3://abc/ü", "not a key"),
            ],
        );
        takes(sha256, &[&"a0".repeat(32), &"A0".repeat(32)]);
        refuses(sha256, &[("", "64"), (&"g".repeat(64), "64")]);
    }
}
