//! A group's own user data, which its nodes run after fleet's.

use fleet_agent_config::{Problem, secrets};

use super::cloud_config;

/// More than gzip brings into what EC2 takes, bytes.
pub(super) const FILE_MAX: u64 = 256 * 1024;

/// A file of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// As `fleet.toml` names it.
    pub file: String,
    /// What cloud-init makes of it.
    pub kind: UserDataKind,
    /// What it holds.
    pub text: String,
}

/// What cloud-init does with a part of user data. Of its other kinds some run before anything of
/// fleet's could, and some fetch what nobody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserDataKind {
    /// Run once, late in the first boot.
    Script,
    /// Settings, merged with fleet's.
    CloudConfig,
}

/// What a file that `fleet.toml` names holds, or why that cannot be told.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What is wrong with the file named at `key`, and what works but perhaps not as meant.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The file named at `key`, unless it is none that nodes could run.
pub(super) fn own(key: &str, file: String, read: Read<'_>) -> (Option<UserData>, Findings) {
    let mut found = Findings::default();
    let text = match read(&file) {
        Ok(text) => text,
        Err(why) => {
            let why = format!("`{file}` {why}");
            found.problems.push(Problem::new(key, why));
            return (None, found);
        }
    };
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(why) = secret(line) {
            let why = format!("`{file}` line {number} {why}: user data must hold none");
            found.problems.push(Problem::new(key, why));
        }
        if waits_for_ecs(line) {
            let why = format!(
                "`{file}` line {number} waits for ecs.service, which waits until user data is done: leave it out, fleet-agent starts it"
            );
            found.warnings.push(Problem::new(key, why));
        }
    }
    let first = text.lines().next().unwrap_or_default();
    let kind = match first.trim_end() {
        script if script.starts_with("#!") => UserDataKind::Script,
        "#cloud-config" => UserDataKind::CloudConfig,
        _ => {
            let why = format!(
                "`{file}` is no script and no cloud-config: its first line begins with `#!`, or is `#cloud-config`"
            );
            found.problems.push(Problem::new(key, why));
            return (None, found);
        }
    };
    if kind == UserDataKind::CloudConfig {
        let wrong = cloud_config::problems(&text).into_iter();
        let wrong =
            wrong.map(|(line, why)| Problem::new(key, format!("`{file}` line {line} {why}")));
        found.problems.extend(wrong);
    }
    (Some(UserData { file, kind, text }), found)
}

/// Shell assignments and what stands anywhere, or a key of YAML's with its value.
fn secret(line: &str) -> Option<&'static str> {
    secrets::literal("", line).or_else(|| {
        let (key, value) = line.trim_start_matches([' ', '-']).split_once(": ")?;
        let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        let (key, value) = (unquoted(key), unquoted(value));
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (key.chars().all(is_key)).then(|| secrets::literal(&key, &value))?
    })
}

/// ecs.service starts after the last of cloud-init (amazon-ecs-agent #1707).
fn waits_for_ecs(line: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let words: Vec<&str> = line.split(|c| !is_word(c)).collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    !line.trim_start().starts_with('#')
        && has(&["systemctl"])
        && has(&["start", "restart", "--now"])
        && has(&["ecs", "ecs.service"])
        && !has(&["--no-block"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Option<UserDataKind>, Vec<String>) {
        let (own, found) = own("groups.web.user_data", "x".into(), &|_| Ok(text.to_owned()));
        let told = found.problems.into_iter().chain(found.warnings);
        (
            own.map(|own| own.kind),
            told.map(|problem| problem.message).collect(),
        )
    }

    #[test]
    fn what_nodes_can_run_is_taken() {
        for (text, kind) in [
            ("#!/bin/sh\necho hello\n", UserDataKind::Script),
            ("#! /usr/bin/python3", UserDataKind::Script),
            (
                "#cloud-config \r\npackages: [jq]\r\n",
                UserDataKind::CloudConfig,
            ),
            (
                "#!/bin/sh\n\
                 TOKEN=`curl -X PUT http://169.254.169.254/latest/api/token -H \"X-aws-ec2-metadata-token-ttl-seconds: 60\"`\n\
                 curl -H \"X-aws-ec2-metadata-token: $TOKEN\" http://169.254.169.254/\n\
                 PASSWORD=$(aws ssm get-parameter --name /db --with-decryption)\n\
                 # systemctl start ecs\n\
                 systemctl start --no-block ecs\n\
                 systemctl restart docker\n",
                UserDataKind::Script,
            ),
            (
                "#cloud-config\nusers:\n- name: ops\n  passwd: $6$salt$hash\n",
                UserDataKind::CloudConfig,
            ),
        ] {
            assert_eq!(of(text), (Some(kind), Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_would_not_do_as_meant_is_told() {
        for (text, part) in [
            ("", "is no script and no cloud-config"),
            ("echo hello\n", "is no script"),
            ("\u{feff}#!/bin/sh\n", "is no script"),
            ("#include https://example.com\n", "is no script"),
            ("#cloud-boothook\n#!/bin/sh\n", "is no script"),
            ("#cloud-config-archive\n", "is no script"),
            (
                "#cloud-config\nmerge_how: dict(replace)\n",
                "leave merge_how",
            ),
            (
                "#cloud-config\nruncmd:\n- echo: hello\n",
                "line 3 gives `runcmd` what is not a text",
            ),
            ("#!/bin/sh\nexport DB_PASSWORD='hunter2'\n", "line 2 gives"),
            (
                "#cloud-config\nkeys:\n- \"api_key\": \"hunter2\"\n",
                "line 3 is named like a secret",
            ),
            (
                "#cloud-config\nwrite_files:\n- path: /key\n  content: |\n    -----BEGIN EC PRIVATE KEY-----\n",
                "line 5 holds a private key",
            ),
            ("#!/bin/sh\nsystemctl enable --now ecs\n", "waits for ecs"),
            (
                "#cloud-config\nruncmd:\n- [systemctl, restart, ecs.service]\n",
                "line 3 waits for ecs",
            ),
        ] {
            let (_, told) = of(text);
            assert_eq!(told.len(), 1, "{text}: {told:?}");
            assert!(told[0].contains(part), "{text}: {told:?}");
            assert!(!told[0].contains("hunter2"), "{told:?}");
        }
    }
}
