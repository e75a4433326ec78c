//! User data: a `#cloud-config` that puts agent.toml onto a node and, where the image does not carry
//! the agent, installs it. JSON is YAML, so no YAML writer is needed.
//!
//! Guarantees of the installing form: ecs.service is gated by `bootcmd` before anything else can
//! fail. Without that a node joined the cluster with the image's own settings as soon as a later
//! step went wrong (cloud-init drops all of `runcmd` for one item of a wrong type). No step waits
//! for ecs.service or for the agent: both start after cloud-init has ended.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use fleet_agent_config::names::{AGENT_BINARY, AGENT_TOML, GATE_PATH, RELEASED};
use serde::Serialize;

use super::{Download, Source, docker_volume};

/// EC2 takes 16 KB, before base64 (EC2 guide, "Run commands at launch").
pub(super) const SIZE_MAX: usize = 16 * 1024;

const UNIT_PATH: &str = "/etc/systemd/system/fleet-agent.service";
const UNIT: &str = include_str!("../../../systemd/fleet-agent.service");
const DRAIN_UNIT_PATH: &str = "/etc/systemd/system/fleet-drain.service";
const DRAIN_UNIT: &str = include_str!("../../../systemd/fleet-drain.service");
const GATE: &str = include_str!("../../../systemd/10-fleet.conf");
/// Where systemd looks for what packages explain of their messages (journalctl, --update-catalog).
const CATALOG_DIRECTORY: &str = "/usr/lib/systemd/catalog";
const CATALOG: &str = "fleet.catalog";
const INSTALLER_PATH: &str = "/usr/libexec/fleet/install-agent";
const INSTALLER: &str = include_str!("../../templates/install-agent.sh");
const FETCH_URL: &str = include_str!("../../templates/fetch-url.sh");
const FETCH_S3: &str = include_str!("../../templates/fetch-s3.sh");

/// Fields in the order in which cloud-init acts on them.
#[derive(Debug, Serialize)]
struct CloudConfig<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bootcmd: Vec<Vec<String>>,
    write_files: Vec<WriteFile<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runcmd: Vec<Vec<&'a str>>,
}

#[derive(Debug, Serialize)]
struct WriteFile<'a> {
    path: &'a str,
    owner: &'a str,
    permissions: &'a str,
    content: &'a str,
}

impl<'a> WriteFile<'a> {
    fn new(path: &'a str, permissions: &'a str, content: &'a str) -> Self {
        Self {
            path,
            owner: "root:root",
            permissions,
            content,
        }
    }
}

/// The readable form.
pub(super) fn cloud_config(
    agent_toml: &str,
    source: Option<&Source>,
    docker_volume: bool,
) -> Result<String, serde_json::Error> {
    let settings = WriteFile::new(AGENT_TOML, "0600", agent_toml);
    let docker_volume = docker_volume.then(docker_volume::command);
    let Some(source) = source else {
        return text(&CloudConfig {
            bootcmd: docker_volume.into_iter().collect(),
            write_files: vec![settings],
            runcmd: Vec::new(),
        });
    };
    let installer = installer(source);
    text(&CloudConfig {
        bootcmd: [gate_command()].into_iter().chain(docker_volume).collect(),
        write_files: vec![
            settings,
            WriteFile::new(GATE_PATH, "0644", GATE),
            WriteFile::new(UNIT_PATH, "0644", UNIT),
            WriteFile::new(DRAIN_UNIT_PATH, "0644", DRAIN_UNIT),
            WriteFile::new(INSTALLER_PATH, "0755", &installer),
        ],
        runcmd: vec![vec![INSTALLER_PATH]],
    })
}

/// The form that is sent: gzip where that is smaller, which cloud-init unpacks by itself. The same
/// text always gives the same bytes, or every `up` would make a new launch template version.
pub(super) fn packed(text: &str) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes())?;
    let packed = gzip.finish()?;
    if packed.len() < text.len() {
        Ok(packed)
    } else {
        Ok(text.as_bytes().to_vec())
    }
}

/// `bootcmd` runs on every boot, `cloud-init-per` makes it once an instance. An agent that the image carries
/// would open the gate by itself, whatever becomes of the one that is asked for.
fn gate_command() -> Vec<String> {
    let directory = GATE_PATH
        .rsplit_once('/')
        .map_or("/", |(directory, _)| directory);
    let gate = format!(
        "mkdir -p {directory} && printf '[Unit]\\nConditionPathExists={RELEASED}\\n' > {GATE_PATH} && rm -f {AGENT_BINARY} && systemctl daemon-reload"
    );
    [
        "cloud-init-per",
        "instance",
        "fleet-gate",
        "sh",
        "-c",
        &gate,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn installer(source: &Source) -> String {
    let fetch = match &source.download {
        Download::Url(url) => {
            let protocol = url.split(':').next().unwrap_or("https");
            FETCH_URL.replace("@PROTOCOL@", protocol)
        }
        Download::S3(object) => FETCH_S3
            .replace("@BUCKET@", &object.bucket)
            .replace("@REGION@", &object.region)
            .replace("@KEY@", &object.key)
            .replace("@ADDRESS@", &object.address()),
    };
    INSTALLER
        .replace("@FETCH@", fetch.trim_end())
        .replace("@SHA256@", &source.sha256)
        .replace("@BINARY@", AGENT_BINARY)
        .replace("@CATALOG_DIRECTORY@", CATALOG_DIRECTORY)
        .replace("@CATALOG@", &format!("{CATALOG_DIRECTORY}/{CATALOG}"))
        .replace("@SOURCE@", &source.download.to_string())
}

fn text(config: &CloudConfig<'_>) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string_pretty(config)?;
    Ok(format!("#cloud-config\n{}\n", as_yaml(&json)))
}

/// JSON that YAML 1.1 reads alike: what YAML takes as a line break or refuses to read stands within
/// strings only, and there both know `\u`.
fn as_yaml(json: &str) -> String {
    let mut yaml = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                yaml.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => yaml.push(c),
        }
    }
    yaml
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "the installer is checked and tried as the shell script it is"
    )]

    use std::{
        io::{BufRead as _, BufReader, Read},
        net::TcpListener,
        os::unix::fs::PermissionsExt,
        path::Path,
        process::Command,
        thread,
    };

    use aws_credential_types::Credentials;
    use aws_sigv4::{
        http_request::{
            PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest,
            SigningSettings, UriPathNormalizationMode, sign,
        },
        sign::v4::SigningParams,
    };
    use aws_smithy_types::{DateTime, date_time::Format};

    use super::{
        super::{S3Object, shellcheck},
        *,
    };

    const AGENT_TOML_TEXT: &str = "version = 1\nfleet = \"shop\"\n";

    fn source(url: &str) -> Source {
        Source {
            download: Download::Url(url.to_owned()),
            sha256: "ab".repeat(32),
        }
    }

    fn s3_source(sha256: String) -> Source {
        Source {
            download: Download::S3(S3Object {
                region: "eu-central-1".to_owned(),
                bucket: "releases".to_owned(),
                key: "fleet-agent/0.1.0~rc_1/fleet-agent".to_owned(),
            }),
            sha256,
        }
    }

    #[test]
    fn golden_baked_form() {
        let text = cloud_config(AGENT_TOML_TEXT, None, false).expect("renders");
        insta::assert_snapshot!("baked", text);
    }

    #[test]
    fn golden_installed_form() {
        let source = source("https://example.com/fleet-agent");
        let text = cloud_config(AGENT_TOML_TEXT, Some(&source), false).expect("renders");
        insta::assert_snapshot!("installed", text);
    }

    #[test]
    fn golden_form_installed_from_s3() {
        let source = s3_source("ab".repeat(32));
        let text = cloud_config(AGENT_TOML_TEXT, Some(&source), false).expect("renders");
        insta::assert_snapshot!("installed_from_s3", text);
    }

    #[test]
    fn golden_form_with_a_volume_for_docker() {
        let source = source("https://example.com/fleet-agent");
        let text = cloud_config(AGENT_TOML_TEXT, None, true).expect("renders");
        insta::assert_snapshot!("docker_volume", text);
        // Each after what gates ECS.
        let text = cloud_config(AGENT_TOML_TEXT, Some(&source), true).expect("renders");
        let gate = text.find("fleet-gate").expect("gated");
        assert!(gate < text.find("fleet-docker").expect("mounted"));
    }

    #[test]
    fn the_gate_is_what_the_unit_directory_holds() {
        assert!(GATE.contains("[Unit]\n"));
        assert!(GATE.ends_with(&format!("\nConditionPathExists={RELEASED}\n")));
    }

    #[test]
    fn packs_to_the_same_bytes_and_only_where_it_helps() {
        let long = cloud_config(&"a = 1\n".repeat(500), None, false).expect("renders");
        let gzip = packed(&long).expect("packs");
        assert_eq!(gzip, packed(&long).expect("packs"));
        assert!(gzip.starts_with(&[0x1f, 0x8b]) && gzip.len() < long.len());
        assert_eq!(gzip[4..8], [0; 4], "no time of packing");
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(gzip.as_slice())
            .read_to_string(&mut unpacked)
            .expect("unpacks");
        assert_eq!(unpacked, long);
        assert_eq!(
            packed("#cloud-config\n{}\n").expect("packs"),
            b"#cloud-config\n{}\n"
        );
    }

    #[test]
    fn what_yaml_reads_differently_is_escaped() {
        let text =
            cloud_config("a = \"\u{85}\u{2028}\u{7f} ü 🙂\"\n", None, false).expect("renders");
        assert!(text.contains("\\u0085\\u2028\\u007f ü 🙂"), "{text}");
    }

    #[test]
    fn the_installer_passes_shellcheck() {
        let source = source("https://example.com/fleet-agent?a=(id)&b=%20;!");
        let text = installer(&source);
        shellcheck::passes(&text);
        assert!(text.contains("--proto '=https'"));
        shellcheck::passes(&installer(&s3_source("ab".repeat(32))));
    }

    const AGENT: &str = "#!/bin/sh\necho \"this is the $*\"\n";

    /// Puts an agent where the installer downloads it, and returns its SHA-256.
    fn download(directory: &Path, agent: &str) -> String {
        use sha2::Digest;
        std::fs::write(directory.join("download"), agent).expect("written");
        sha2::Sha256::digest(agent)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// What boot-order demands of the unit: first to stop, and only at a shutdown.
    #[test]
    fn the_drain_unit_stops_before_what_a_drain_needs() {
        let after = DRAIN_UNIT
            .lines()
            .find_map(|line| line.strip_prefix("After="))
            .expect("ordered");
        for needed in [
            "fleet-agent.service",
            "ecs.service",
            "docker.service",
            "network-online.target",
        ] {
            assert!(after.split(' ').any(|unit| unit == needed), "{needed}");
        }
        let stop = DRAIN_UNIT
            .lines()
            .find_map(|line| line.strip_prefix("ExecStop="))
            .expect("drains");
        let (guard, drain) = stop.split_once("|| exit 0; exec ").expect("guarded");
        assert!(guard.contains("is-system-running)\" = stopping"), "{guard}");
        assert_eq!(drain, format!("{AGENT_BINARY} drain --shutdown'"));
    }

    /// Runs the installer with everything it touches in a directory of its own, on a download that
    /// is a file there. Returns what stands on the console and what systemctl and journalctl were
    /// told.
    fn install(directory: &Path, sha256: &str) -> (bool, String, String) {
        let download = directory.join("download").display().to_string();
        let source = Source {
            download: Download::Url(format!("file://{download}")),
            sha256: sha256.to_owned(),
        };
        install_from(directory, &source, &[])
    }

    fn install_from(
        directory: &Path,
        source: &Source,
        environment: &[(&str, &str)],
    ) -> (bool, String, String) {
        let at = |name: &str| directory.join(name).display().to_string();
        let script = installer(source)
            .replace(AGENT_BINARY, &at("fleet-agent"))
            .replace("/dev/console", &at("console"))
            .replace(CATALOG_DIRECTORY, &at("catalog"))
            .replace(
                "journalctl --",
                &format!("echo >>{} journalctl --", at("systemctl")),
            )
            .replace("--retry 5", "--retry 0")
            .replace("sleep 2", "sleep 0.1")
            .replace("-lt 60", "-lt 1")
            .replace("systemctl ", &format!("echo >>{} ", at("systemctl")));
        let ended = Command::new("sh")
            .args(["-c", &script])
            .envs(environment.iter().copied())
            .output()
            .expect("sh runs");
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        (ended.status.success(), read("console"), read("systemctl"))
    }

    #[test]
    fn the_installer_starts_what_it_was_told_to_download() {
        let directory = tempfile::tempdir().expect("directory");
        let sum = download(directory.path(), AGENT);
        let (ok, console, systemctl) = install(directory.path(), &sum);
        assert!(ok, "{console}");
        assert_eq!(
            systemctl,
            "journalctl --update-catalog\n\
             daemon-reload\n\
             enable fleet-agent.service fleet-drain.service\n\
             restart --no-block fleet-agent.service\n\
             start --no-block fleet-drain.service\n"
        );
        let catalog = directory.path().join("catalog").join(CATALOG);
        let catalog = std::fs::read_to_string(catalog).expect("written");
        assert_eq!(catalog, "this is the catalog\n");
        let installed = directory.path().join("fleet-agent");
        let bytes = std::fs::read(&installed).expect("installed");
        assert_eq!(bytes, AGENT.as_bytes());
        let mode = std::fs::metadata(&installed)
            .expect("installed")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    /// An instance's metadata service, which lacks the role at first, and S3 beside it. Ends with what S3 was
    /// asked, once that has answered with this status and text.
    fn aws(listener: &TcpListener, credentials: &str, answer: (u16, &str)) -> Vec<String> {
        const TOKEN: &str = "X-aws-ec2-metadata-token: imds-token";
        const ROLES: &str = "GET /latest/meta-data/iam/security-credentials/";
        let mut looks_for_a_role = 0;
        loop {
            let (mut stream, _) = listener.accept().expect("a caller");
            let lines = BufReader::new(&stream).lines();
            let lines = lines.map(|line| line.expect("a line"));
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let asked = head[0].trim_end_matches(" HTTP/1.1");
            let (status, body) = if asked == "PUT /latest/api/token" {
                (200, "imds-token")
            } else if asked.starts_with(ROLES) && !head.iter().any(|line| line == TOKEN) {
                (401, "")
            } else if asked == ROLES {
                looks_for_a_role += 1;
                match looks_for_a_role {
                    1 => (404, ""),
                    _ => (200, "shop-dev-web"),
                }
            } else if asked == format!("{ROLES}shop-dev-web") {
                (200, credentials)
            } else {
                answer
            };
            let length = body.len();
            let reply = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(reply.as_bytes()).expect("told");
            if (status, body) == answer {
                return head;
            }
        }
    }

    /// As EC2 writes them (EC2 guide, "Retrieve security credentials from instance metadata").
    const CREDENTIALS: &str = r#"{
  "Code" : "Success",
  "Type" : "AWS-HMAC",
  "AccessKeyId" : "ASIAEXAMPLE",
  "SecretAccessKey" : "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
  "Token" : "IQoJb3JpZ2luX2VjE/+==",
  "Expiration" : "2026-11-22T22:00:00Z"
}"#;

    /// What the SDKs would send in the place of this request, by its own time.
    fn signature(head: &[String]) -> Option<String> {
        let header = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let path = head[0].split(' ').nth(1)?;
        let identity = Credentials::new(
            "ASIAEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some("IQoJb3JpZ2luX2VjE/+==".to_owned()),
            None,
            "test",
        );
        let identity = identity.into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let date = header("x-amz-date")?;
        let [year, month, day] = [&date[..4], &date[4..6], &date[6..8]];
        let [hour, minute, second] = [&date[9..11], &date[11..13], &date[13..15]];
        let time = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
        let time = DateTime::from_str(&time, Format::DateTime).ok()?;
        let params = SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name("s3")
            .time(time.try_into().ok()?)
            .settings(settings)
            .build()
            .ok()?
            .into();
        let uri = format!("http://{}{path}", header("host")?);
        let empty = std::iter::empty();
        let request = SignableRequest::new("GET", uri, empty, SignableBody::Bytes(b"")).ok()?;
        let (instructions, _) = sign(request, &params).ok()?.into_parts();
        for (name, value) in instructions.headers() {
            let sent = header(name).unwrap_or_default();
            assert_eq!(sent.replace(", ", ","), value.replace(", ", ","), "{name}");
        }
        header("authorization")
    }

    #[test]
    fn the_installer_asks_s3_with_the_instance_s_credentials_as_an_sdk_would() {
        let directory = tempfile::tempdir().expect("directory");
        let sum = download(directory.path(), AGENT);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let aws = thread::spawn(move || aws(&listener, CREDENTIALS, (200, AGENT)));
        let environment = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
        ];
        let (ok, console, systemctl) =
            install_from(directory.path(), &s3_source(sum), &environment);
        assert!(ok && systemctl.contains("restart --no-block"), "{console}");
        let head = aws.join().expect("no panic");
        assert_eq!(
            head[0],
            "GET /releases/fleet-agent/0.1.0~rc_1/fleet-agent HTTP/1.1"
        );
        let signature = signature(&head).expect("signed");
        assert!(
            signature.contains("/eu-central-1/s3/aws4_request"),
            "{signature}"
        );
    }

    #[test]
    fn the_installer_says_what_kept_it_from_s3() {
        let refused = "{ \"Code\" : \"AssumeRoleUnauthorizedAccess\" }";
        for (credentials, status, told) in [
            (
                CREDENTIALS,
                403,
                "curl: (22) The requested URL returned error: 403",
            ),
            (
                CREDENTIALS,
                404,
                "curl: (22) The requested URL returned error: 404",
            ),
            (
                refused,
                200,
                "role shop-dev-web has no credentials: AssumeRoleUnauthorizedAccess",
            ),
        ] {
            let directory = tempfile::tempdir().expect("directory");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
            // Not joined: without credentials nobody asks S3.
            thread::spawn(move || aws(&listener, credentials, (status, "<Error/>")));
            let environment = [
                ("AWS_ENDPOINT_URL", endpoint.as_str()),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
            ];
            let source = s3_source("ab".repeat(32));
            let (ok, console, systemctl) = install_from(directory.path(), &source, &environment);
            assert!(!ok && systemctl.is_empty(), "{systemctl}");
            let failed = "fleet-agent: install failed: cannot download s3://releases/";
            assert!(
                console.starts_with(failed) && console.contains(told),
                "{console}"
            );
            assert_eq!(console.lines().count(), 1, "{console}");
        }
    }

    #[test]
    fn a_node_does_without_explanations_in_its_journal() {
        let directory = tempfile::tempdir().expect("directory");
        let sum = download(directory.path(), "#!/bin/sh\nexit 1\n");
        let (ok, console, systemctl) = install(directory.path(), &sum);
        assert!(ok && console.is_empty(), "{console}");
        assert!(
            systemctl.starts_with("daemon-reload\n") && systemctl.contains("start "),
            "{systemctl}"
        );
    }

    #[test]
    fn the_installer_leaves_nothing_but_a_line_on_the_console_when_it_fails() {
        let directory = tempfile::tempdir().expect("directory");
        let (ok, console, systemctl) = install(directory.path(), &"ab".repeat(32));
        assert!(!ok && systemctl.is_empty());
        assert!(
            console.starts_with("fleet-agent: install failed: cannot download ")
                && console.contains("curl: (37)"),
            "{console}"
        );

        std::fs::write(directory.path().join("download"), "another").expect("written");
        let (ok, console, systemctl) = install(directory.path(), &"ab".repeat(32));
        assert!(!ok && systemctl.is_empty());
        assert!(
            console.contains("has SHA-256 ") && console.contains("pins abab"),
            "{console}"
        );
        assert_eq!(console.lines().count(), 1);
        let names: Vec<_> = std::fs::read_dir(directory.path())
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name())
            .filter(|name| name.to_string_lossy().starts_with("fleet-agent"))
            .collect();
        assert!(names.is_empty(), "{names:?}");
    }
}
