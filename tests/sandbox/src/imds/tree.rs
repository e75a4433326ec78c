//! What the metadata service knows about one machine: paths and texts, nothing else.

use std::{collections::BTreeMap, net::Ipv4Addr};

use fleet_sandbox::{machines::Metadata, notices::SpotAction};
use jiff::{Timestamp, ToSpan as _};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::room::host_name;

/// How long the credentials of a role are good, hours: what EC2 gives.
const CREDENTIAL_HOURS: i64 = 6;

/// Every leaf of one machine, by its path below the version.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// All that is known of the machine at `address`. `since` stands for the time of its launch.
    pub(super) fn of(
        metadata: &Metadata,
        address: Ipv4Addr,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.identity(metadata, address, since);
        tree.network(address);
        tree.credentials(metadata, now);
        tree.public_key(metadata);
        tree.tags(metadata);
        tree.notices(metadata);
        if let Some(user_data) = &metadata.user_data {
            tree.0.insert("user-data".to_owned(), user_data.clone());
        }
        tree
    }

    /// The leaf at a request's path, or the listing of a directory. Any version is as good as
    /// `latest`: cloud-init asks for dated ones.
    pub(super) fn get(&self, request: &str) -> Option<Vec<u8>> {
        let path = request.trim_start_matches('/');
        let (version, path) = path.split_once('/').unwrap_or((path, ""));
        if version.is_empty() {
            return Some(b"latest".to_vec());
        }
        if version != "latest" && !is_date(version) {
            return None;
        }
        // Some clients encode the colon in a tag's key.
        let path = percent_decode_str(path).decode_utf8_lossy();
        let path = path.trim_end_matches('/');
        let leaf = self.0.get(path).or_else(|| self.0.get(&format!("{path}/")));
        leaf.cloned().or_else(|| self.listing(path))
    }

    fn listing(&self, directory: &str) -> Option<Vec<u8>> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let mut names: Vec<&str> = self
            .0
            .range(prefix.clone()..)
            .map_while(|(path, _)| path.strip_prefix(&prefix))
            .map(|rest| rest.find('/').map_or(rest, |slash| &rest[..=slash]))
            .collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join("\n").into_bytes())
    }

    fn leaf(&mut self, path: &str, text: impl Into<String>) {
        self.0
            .insert(format!("meta-data/{path}"), text.into().into_bytes());
    }

    fn identity(&mut self, metadata: &Metadata, address: Ipv4Addr, since: Timestamp) {
        let host = format!("{}.ec2.internal", host_name(address));
        self.leaf("ami-id", &metadata.image_id);
        self.leaf("ami-launch-index", "0");
        self.leaf("block-device-mapping/ami", "/dev/xvda");
        self.leaf("block-device-mapping/root", "/dev/xvda");
        self.leaf("hostname", &host);
        self.leaf("local-hostname", &host);
        self.leaf("instance-action", "none");
        self.leaf("instance-id", &metadata.instance_id);
        self.leaf("instance-life-cycle", metadata.life_cycle.as_str());
        self.leaf("instance-type", &metadata.instance_type);
        self.leaf("placement/availability-zone", &metadata.availability_zone);
        self.leaf("placement/region", &metadata.region);
        self.leaf("services/domain", "amazonaws.com");
        self.leaf("services/partition", "aws");
        let document = json!({
            "accountId": metadata.account_id,
            "architecture": "x86_64",
            "availabilityZone": metadata.availability_zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "imageId": metadata.image_id,
            "instanceId": metadata.instance_id,
            "instanceType": metadata.instance_type,
            "kernelId": null,
            "marketplaceProductCodes": null,
            "pendingTime": whole_seconds(since),
            "privateIp": address.to_string(),
            "ramdiskId": null,
            "region": metadata.region,
            "version": "2017-09-30",
        });
        let directory = "dynamic/instance-identity";
        self.0.insert(
            format!("{directory}/document"),
            format!("{document:#}").into_bytes(),
        );
        // Nobody in the sandbox checks them; the ECS agent sends them on.
        for proof in ["pkcs7", "signature", "rsa2048"] {
            self.0
                .insert(format!("{directory}/{proof}"), b"c2FuZGJveA==".to_vec());
        }
    }

    fn network(&mut self, address: Ipv4Addr) {
        let [a, b, c, d] = address.octets();
        // How Docker makes a MAC address of an address.
        let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        let interface = format!("network/interfaces/macs/{mac}");
        self.leaf("local-ipv4", address.to_string());
        self.leaf("mac", &mac);
        self.leaf(&format!("{interface}/device-number"), "0");
        self.leaf(&format!("{interface}/local-ipv4s"), address.to_string());
        self.leaf(&format!("{interface}/mac"), &mac);
        let subnet = format!("{a}.{b}.{c}.0/24");
        self.leaf(&format!("{interface}/subnet-ipv4-cidr-block"), subnet);
    }

    fn credentials(&mut self, metadata: &Metadata, now: Timestamp) {
        let Some(role) = &metadata.role else {
            return;
        };
        let info = json!({
            "Code": "Success",
            "LastUpdated": whole_seconds(now),
            "InstanceProfileArn":
                format!("arn:aws:iam::{}:instance-profile/{role}", metadata.account_id),
            "InstanceProfileId": "AIPASANDBOX",
        });
        self.leaf("iam/info", format!("{info:#}"));
        let expiration = now.saturating_add(CREDENTIAL_HOURS.hours()).unwrap_or(now);
        let credentials = json!({
            "Code": "Success",
            "LastUpdated": whole_seconds(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": metadata.access_key_id,
            "SecretAccessKey": "sandbox",
            "Token": "sandbox",
            "Expiration": whole_seconds(expiration),
        });
        self.leaf(
            &format!("iam/security-credentials/{role}"),
            format!("{credentials:#}"),
        );
    }

    /// The one directory whose listing says more than names.
    fn public_key(&mut self, metadata: &Metadata) {
        let Some((name, key)) = &metadata.public_key else {
            return;
        };
        self.leaf("public-keys/", format!("0={name}"));
        self.leaf("public-keys/0/openssh-key", key);
    }

    fn tags(&mut self, metadata: &Metadata) {
        for (key, value) in metadata.tags.iter().flatten() {
            self.leaf(&format!("tags/instance/{key}"), value);
        }
    }

    fn notices(&mut self, metadata: &Metadata) {
        for (list, events) in [
            ("history", &metadata.maintenance_history),
            ("scheduled", &metadata.maintenance),
        ] {
            self.leaf(
                &format!("events/maintenance/{list}"),
                format!("{:#}", json!(events)),
            );
        }
        if let Some(state) = &metadata.target_lifecycle_state {
            self.leaf("autoscaling/target-lifecycle-state", state);
        }
        if let Some((action, time)) = &metadata.spot_action {
            let notice = json!({"action": action, "time": time});
            self.leaf("spot/instance-action", notice.to_string());
            // The older of the two leaves, which only knows termination.
            if action == SpotAction::Terminate.as_str() {
                self.leaf("spot/termination-time", time);
            }
        }
        if let Some(time) = &metadata.rebalance {
            let notice = json!({"noticeTime": time});
            self.leaf("events/recommendations/rebalance", notice.to_string());
        }
    }
}

/// `2026-11-21T08:13:26Z`, as AWS writes it.
fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2021-03-23`
fn is_date(version: &str) -> bool {
    version.len() == 10
        && version.char_indices().all(|(at, c)| match at {
            4 | 7 => c == '-',
            _ => c.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use fleet_sandbox::notices::{LifeCycle, ScheduledEvent};

    use super::{super::tests::machine, *};

    fn tree(metadata: &Metadata) -> Tree {
        Tree::of(
            metadata,
            Ipv4Addr::new(10, 213, 4, 11),
            "2026-11-21T07:00:00Z".parse().unwrap(),
            "2026-11-21T08:13:26.5Z".parse().unwrap(),
        )
    }

    fn text(tree: &Tree, path: &str) -> Option<String> {
        tree.get(path).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn directories_are_listed_with_or_without_a_slash() {
        let tree = tree(&machine());
        for path in [
            "/latest/meta-data/placement/",
            "/2021-03-23/meta-data/placement",
        ] {
            assert_eq!(
                text(&tree, path).as_deref(),
                Some("availability-zone\nregion")
            );
        }
        let top = text(&tree, "/latest/meta-data/").unwrap();
        assert!(
            top.contains("iam/\ninstance-action\ninstance-id\n"),
            "{top}"
        );
        assert_eq!(
            text(&tree, "/latest/").as_deref(),
            Some("dynamic/\nmeta-data/\nuser-data")
        );
        assert_eq!(text(&tree, "/1970/meta-data/"), None);
    }

    #[test]
    fn the_identity_document_names_the_machine() {
        let tree = tree(&machine());
        let document = text(&tree, "/latest/dynamic/instance-identity/document").unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["instanceId"], "i-0123456789abcdef0");
        assert_eq!(document["privateIp"], "10.213.4.11");
        assert_eq!(document["pendingTime"], "2026-11-21T07:00:00Z");
    }

    #[test]
    fn credentials_carry_the_machine_s_key_and_expire_in_six_hours() {
        let tree = tree(&machine());
        let list = "/latest/meta-data/iam/security-credentials/";
        assert_eq!(text(&tree, list).as_deref(), Some("web"));
        let credentials = text(&tree, &format!("{list}web")).unwrap();
        let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
        assert_eq!(credentials["AccessKeyId"], "ASIAEXAMPLE");
        assert_eq!(credentials["Expiration"], "2026-11-21T14:13:26Z");
        assert_eq!(credentials["Code"], "Success");
    }

    #[test]
    fn a_key_pair_is_listed_with_its_name() {
        let tree = tree(&machine());
        for path in ["public-keys", "public-keys/"] {
            let path = format!("/latest/meta-data/{path}");
            assert_eq!(text(&tree, &path).as_deref(), Some("0=ops"));
        }
        let key = "/latest/meta-data/public-keys/0/openssh-key";
        assert_eq!(text(&tree, key).as_deref(), Some("ssh-rsa AAAA ops"));
        let top = text(&tree, "/latest/meta-data/").unwrap();
        assert_eq!(top.matches("public-keys").count(), 1, "{top}");
    }

    #[test]
    fn without_a_role_tags_or_user_data_there_is_nothing_to_find() {
        let bare = Metadata {
            role: None,
            public_key: None,
            tags: None,
            user_data: None,
            target_lifecycle_state: None,
            ..machine()
        };
        let tree = tree(&bare);
        for path in [
            "iam/info",
            "iam/security-credentials/",
            "public-keys/",
            "tags/instance/",
            "autoscaling/target-lifecycle-state",
            "../user-data",
        ] {
            assert_eq!(text(&tree, &format!("/latest/meta-data/{path}")), None);
        }
        assert_eq!(text(&tree, "/latest/user-data"), None);
    }

    #[test]
    fn tags_may_be_asked_for_with_an_encoded_colon() {
        let tree = tree(&machine());
        for key in ["aws:autoscaling:groupName", "aws%3Aautoscaling%3agroupName"] {
            let path = format!("/latest/meta-data/tags/instance/{key}");
            assert_eq!(text(&tree, &path).as_deref(), Some("dev-web"));
        }
        let list = "/latest/meta-data/tags/instance";
        assert_eq!(
            text(&tree, list).as_deref(),
            Some("aws:autoscaling:groupName")
        );
    }

    #[test]
    fn notices_are_json() {
        let leaving = Metadata {
            spot_action: Some(("terminate".to_owned(), "2026-11-21T08:15:00Z".to_owned())),
            rebalance: Some("2026-11-21T08:10:00Z".to_owned()),
            ..machine()
        };
        let tree = tree(&leaving);
        assert_eq!(
            text(&tree, "/latest/meta-data/spot/instance-action").as_deref(),
            Some(r#"{"action":"terminate","time":"2026-11-21T08:15:00Z"}"#)
        );
        assert_eq!(
            text(&tree, "/latest/meta-data/events/recommendations/rebalance").as_deref(),
            Some(r#"{"noticeTime":"2026-11-21T08:10:00Z"}"#)
        );
        assert_eq!(
            text(&tree, "/latest/meta-data/spot/termination-time").as_deref(),
            Some("2026-11-21T08:15:00Z")
        );
        assert_eq!(
            text(&tree, "/latest/meta-data/events/maintenance/scheduled").as_deref(),
            Some("[]")
        );
    }

    #[test]
    fn a_machine_that_is_to_be_stopped_has_no_time_of_termination() {
        let leaving = Metadata {
            life_cycle: LifeCycle::Spot,
            spot_action: Some(("stop".to_owned(), "2026-11-21T08:15:00Z".to_owned())),
            ..machine()
        };
        let tree = tree(&leaving);
        let path = "/latest/meta-data/spot/";
        assert_eq!(text(&tree, path).as_deref(), Some("instance-action"));
        let path = "/latest/meta-data/instance-life-cycle";
        assert_eq!(text(&tree, path).as_deref(), Some("spot"));
    }

    #[test]
    fn maintenance_is_a_list_of_events() {
        let event = ScheduledEvent {
            not_before: "21 Nov 2026 15:04:05 GMT".to_owned(),
            code: "system-reboot".to_owned(),
            description: "scheduled reboot".to_owned(),
            event_id: "instance-event-0".to_owned(),
            not_after: "21 Nov 2026 17:04:05 GMT".to_owned(),
            state: "active".to_owned(),
        };
        let tree = tree(&Metadata {
            maintenance: vec![event],
            ..machine()
        });
        let events = text(&tree, "/latest/meta-data/events/maintenance/scheduled").unwrap();
        let events: serde_json::Value = serde_json::from_str(&events).unwrap();
        assert_eq!(events[0]["NotBefore"], "21 Nov 2026 15:04:05 GMT");
        assert_eq!(events[0]["State"], "active");
        let history = text(&tree, "/latest/meta-data/events/maintenance/history");
        assert_eq!(history.as_deref(), Some("[]"));
    }
}
