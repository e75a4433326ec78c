//! What mounts a group's volume for Docker, on every boot and before Docker starts.

/// Where it is attached. ECS-optimized images used to have Docker's volume there, and it is none of the
/// names that people attach volumes by hand with, /dev/sd[f-p] (EC2 guide, "Device names for volumes").
pub(crate) const DEVICE: &str = "/dev/xvdcz";
const ROOT: &str = "/var/lib/docker";
const GATE: &str = "/etc/systemd/system/docker.service.d/10-fleet.conf";
const SCRIPT: &str = include_str!("../../templates/mount-docker-volume.sh");

/// A `bootcmd`: nothing of cloud-init's that is earlier can write a file.
pub(super) fn command() -> Vec<String> {
    ["sh", "-c", &script()].map(str::to_owned).to_vec()
}

fn script() -> String {
    SCRIPT
        .replace("@DEVICE@", DEVICE)
        .replace("@ROOT@", ROOT)
        .replace("@GATE@", GATE)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "the script is checked and tried as what it is"
    )]

    use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use super::{super::shellcheck, *};

    #[test]
    fn it_passes_shellcheck() {
        shellcheck::passes(&script());
    }

    /// A node whose volume holds what the file `label` says: `none`, or a label. Its programs write
    /// down what they were told.
    const PROGRAMS: &[(&str, &str)] = &[
        ("systemctl", "exit 0"),
        ("mountpoint", "[ -e \"$at/mounted\" ]"),
        (
            "blkid",
            "label=$(cat \"$at/label\"); [ \"$label\" != none ] || exit 2; \
             [ \"$label\" != broken ] || exit 8; [ \"$2\" != -s ] || echo \"$label\"",
        ),
        ("mkfs.xfs", "printf %s \"$3\" > \"$at/label\""),
        ("mount", ": > \"$at/mounted\""),
    ];

    struct Booted {
        ok: bool,
        /// What stands on the console.
        console: String,
        /// Programs that change something, in order.
        ran: Vec<String>,
    }

    /// Runs the script with everything it touches in a directory of its own.
    fn boot(directory: &Path) -> Booted {
        let at = |name: &str| directory.join(name).display().to_string();
        for (name, body) in PROGRAMS {
            let path = directory.join(name);
            let text = format!(
                "#!/bin/sh\nat='{0}'\necho {name} \"$@\" >> \"$at/ran\"\n{body}\n",
                at("")
            );
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        let _ = fs::remove_file(at("ran"));
        let _ = fs::remove_file(at("console"));
        let script = script()
            .replace(DEVICE, &at("device"))
            .replace(ROOT, &at("root"))
            .replace(GATE, &at("docker.service.d/10-fleet.conf"))
            .replace("/dev/console", &at("console"))
            .replace("[ -b", "[ -e")
            .replace("-lt 60", "-lt 1")
            .replace("sleep 1", ":");
        let path = format!("{}:/usr/bin:/bin", at(""));
        let ended = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", path)
            .output()
            .expect("sh runs");
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let changes = |line: &&str| {
            ["mkfs.xfs", "mount ", "systemctl"]
                .iter()
                .any(|program| line.starts_with(program))
        };
        let ran = read("ran");
        Booted {
            ok: ended.status.success(),
            console: read("console"),
            ran: ran
                .lines()
                .filter(changes)
                .map(|line| line.replace(&at(""), ""))
                .collect(),
        }
    }

    fn node(label: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join("device"), "").expect("written");
        fs::write(directory.path().join("label"), label).expect("written");
        directory
    }

    #[test]
    fn a_new_volume_gets_a_file_system_once_and_is_mounted_on_every_boot() {
        let node = node("none");
        let mount = "mount -t xfs -o noatime device root";
        let first = boot(node.path());
        assert!(first.ok, "{}", first.console);
        assert_eq!(
            first.ran,
            [
                "systemctl daemon-reload",
                "mkfs.xfs -q -L fleet-docker device",
                mount
            ]
        );
        let gate = fs::read_to_string(node.path().join("docker.service.d/10-fleet.conf"));
        let root = node.path().join("root");
        assert_eq!(
            gate.expect("written"),
            format!("[Unit]\nAssertPathIsMountPoint={}\n", root.display())
        );
        assert_eq!(boot(node.path()).ran, [""; 0], "mounted already");
        fs::remove_file(node.path().join("mounted")).expect("rebooted");
        assert_eq!(boot(node.path()).ran, [mount]);
    }

    #[test]
    fn what_holds_something_else_is_left_alone_and_docker_kept_from_starting() {
        for (label, part) in [
            ("somebodys", "holds something else (label 'somebodys')"),
            ("", "holds something else (label '')"),
            ("broken", "cannot tell what is on"),
        ] {
            let node = node(label);
            let booted = boot(node.path());
            assert!(!booted.ok, "{label}");
            assert_eq!(booted.ran, ["systemctl daemon-reload"], "{label}");
            assert!(
                booted.console.starts_with("fleet-agent: docker volume: ")
                    && booted.console.contains(part),
                "{label}: {}",
                booted.console
            );
            assert_eq!(booted.console.lines().count(), 1);
        }
    }

    #[test]
    fn a_volume_that_does_not_come_is_told() {
        let node = node("none");
        fs::remove_file(node.path().join("device")).expect("removed");
        let booted = boot(node.path());
        assert!(
            !booted.ok && booted.console.contains("there is no "),
            "{}",
            booted.console
        );
    }
}
