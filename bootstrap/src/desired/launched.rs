//! What the user data of a launch template says, and whether its nodes can be brought to other
//! settings while they live.

use std::{fmt, io::Read as _};

use flate2::read::GzDecoder;
use fleet_agent_config::{Config, Live, Problem, names::AGENT_TOML, render};
use serde_json::Value;

use super::{
    Source, multipart,
    user_data::{self, SIZE_MAX},
};
use crate::spec::UserData;

/// User data unpacks to no more than this, bytes: what is larger is none of ours.
const UNPACKED_MAX: u64 = 64 * SIZE_MAX as u64;

/// What user data is made from.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) source: Option<Source>,
    pub(crate) own: Option<UserData>,
    /// Whether Docker has a volume to itself.
    pub(crate) docker_volume: bool,
}

/// It is all in the user data.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    /// What keeps nodes that were launched with this user data from taking these settings while they
    /// live: nothing, if the list is empty. `None` where more than live settings differ.
    pub(crate) fn kept_by(&self, user_data: &[u8]) -> Option<Vec<Problem>> {
        let text = unpacked(user_data)?;
        let launched = config(&text)?;
        let live = Live::of(&self.config, 1);
        // What else stands in it has to be what would be written today.
        let today = render(&launched).ok()?;
        let source = self.source.as_ref();
        let today = user_data::cloud_config(&today, source, self.docker_volume).ok()?;
        let today = multipart::joined(today, self.own.as_ref());
        (launched.with(&live) == self.config && today == text).then(|| launched.refusals(&live))
    }
}

/// The cluster that nodes with this user data join; `None` for what is none of ours.
pub(crate) fn cluster(user_data: &[u8]) -> Option<String> {
    let launched = config(&unpacked(user_data)?)?;
    Some(launched.cluster)
}

fn config(user_data: &str) -> Option<Config> {
    let launched = agent_toml(&multipart::first(user_data)?)?;
    let (launched, _) = Config::read(AGENT_TOML, &launched).ok()?;
    Some(launched)
}

fn unpacked(user_data: &[u8]) -> Option<String> {
    let mut text = String::new();
    let unpacked = if user_data.starts_with(&[0x1f, 0x8b]) {
        let gzip = GzDecoder::new(user_data);
        gzip.take(UNPACKED_MAX).read_to_string(&mut text)
    } else {
        (&mut &*user_data).read_to_string(&mut text)
    };
    unpacked.ok().map(|_| text)
}

/// Out of a cloud-config of this program's making, which is JSON below its first line.
fn agent_toml(cloud_config: &str) -> Option<String> {
    let (_, json) = cloud_config.split_once('\n')?;
    let config: Value = serde_json::from_str(json).ok()?;
    let files = config["write_files"].as_array()?;
    let file = files.iter().find(|file| file["path"] == AGENT_TOML)?;
    Some(file["content"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FleetFile, UserDataKind};

    const FILE: &str = include_str!("../../tests/fleet.toml");

    fn template(text: &str) -> super::super::LaunchTemplate {
        let spec = FleetFile::new("fleet.toml", text).spec("dev");
        let desired = super::super::build(&spec.expect("valid")).expect("builds");
        let mut groups = desired.groups.into_iter();
        groups
            .find(|group| group.name == "web")
            .expect("web")
            .launch_template
    }

    #[test]
    fn user_data_tells_which_cluster_its_nodes_join() {
        let adopts = FILE.replace(
            "[environments.dev]",
            "[environments.dev]\nunset = [\"cluster\"]\n[environments.dev.cluster]\nadopt = \"main\"",
        );
        assert_eq!(
            cluster(&template(&adopts).user_data).as_deref(),
            Some("main")
        );
        assert_eq!(
            cluster(&template(FILE).user_data).as_deref(),
            Some("shop-dev")
        );
        assert_eq!(cluster(b"#cloud-config\n{}"), None);
    }

    #[test]
    fn only_live_settings_keep_a_launch_template() {
        let launched = template(FILE);
        let kept = |text: &str| template(text).settings.kept_by(&launched.user_data);
        assert_eq!(kept(FILE), Some(Vec::new()));
        let deadline =
            format!("{FILE}\n[environments.dev.groups.web.drain]\ndeadline_seconds = 777\n");
        assert_eq!(kept(&deadline), Some(Vec::new()));
        let loud = format!("{FILE}\n[environments.dev.groups.web.ecs]\nECS_LOGLEVEL = \"debug\"\n");
        assert_eq!(kept(&loud), None);
        let sidecar = format!("{FILE}\n[sidecars.more]\nimage = \"elsewhere.example/more:1\"\n");
        let problems = kept(&sidecar).expect("live, and past the envelope");
        assert_eq!(problems[0].key, "sidecars.more.image");
        // Of a change in the user's own part only new nodes hear.
        let with = |text: &str| {
            let mut template = template(FILE);
            template.settings.own = Some(UserData {
                file: "nodes.sh".to_owned(),
                kind: UserDataKind::Script,
                text: text.to_owned(),
            });
            template.settings
        };
        let theirs = super::unpacked(&launched.user_data).expect("ours");
        let theirs = multipart::joined(theirs, with("#!/bin/sh\n").own.as_ref());
        let kept = |settings: Settings| settings.kept_by(theirs.as_bytes());
        assert_eq!(kept(with("#!/bin/sh\n")), Some(Vec::new()));
        assert_eq!(kept(with("#!/bin/sh\ntrue\n")), None);
        assert_eq!(kept(template(FILE).settings), None);
        let none = template(FILE).settings;
        for foreign in [
            &b"#cloud-config\n{}"[..],
            b"#!/bin/sh\n",
            b"\x1f\x8b",
            b"\xff",
        ] {
            assert_eq!(none.kept_by(foreign), None);
        }
    }
}
