//! Fleet's user data and the user's own in one MIME message, which cloud-init takes apart.
//!
//! Guarantees: fleet's part is the first. The lists of a cloud-config are appended to fleet's (`bootcmd`,
//! `write_files`, `runcmd`), and what fleet has set stays. A script runs after fleet's `runcmd`, whatever
//! became of that (cloud-init, "Merging user data sections" and `handlers/cloud_config.py`).

use std::{borrow::Cow, iter};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::spec::{UserData, UserDataKind};

const HEAD: &str = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=";
const BOUNDARY: &str = "==fleet==";
const CLOUD_CONFIG: &str = "Content-Type: text/cloud-config\n";
/// A part says how it is laid over those before it.
const APPENDED: &str = "Merge-Type: list(append)+dict(no_replace,recurse_list)\n";
/// cloud-init runs scripts in the order of their names, and `runcmd` is one of them.
const SCRIPT: &str = "Content-Type: text/x-shellscript\n\
    Content-Disposition: attachment; filename=\"user-data\"\n";
/// cloud-init reads a part as text, where Python mangles what is not ASCII.
const ENCODED: &str = "Content-Transfer-Encoding: base64\n";

/// `cloud_config` alone where there is nothing more.
pub(super) fn joined(cloud_config: String, own: Option<&UserData>) -> String {
    let Some(own) = own else {
        return cloud_config;
    };
    let headers = match own.kind {
        UserDataKind::CloudConfig => format!("{CLOUD_CONFIG}{APPENDED}"),
        UserDataKind::Script => SCRIPT.to_owned(),
    };
    let boundary = boundary(&own.text);
    let (ours, theirs) = (part(CLOUD_CONFIG, &cloud_config), part(&headers, &own.text));
    format!(
        "{HEAD}\"{boundary}\"\n\n--{boundary}\n{ours}\n--{boundary}\n{theirs}\n--{boundary}--\n"
    )
}

/// The first part of what [`joined`] wrote, which is all of it where there is only one.
pub(super) fn first(text: &str) -> Option<Cow<'_, str>> {
    if !text.starts_with(HEAD) {
        return Some(Cow::Borrowed(text));
    }
    let (_, parts) = text.split_once("\n\n--")?;
    let (boundary, part) = parts.split_once('\n')?;
    let (headers, rest) = part.split_once("\n\n")?;
    let (body, _) = rest.split_once(&format!("\n--{boundary}\n"))?;
    if !headers.contains(ENCODED.trim_end()) {
        return Some(Cow::Borrowed(body));
    }
    let decoded = BASE64_STANDARD.decode(body).ok()?;
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// Headers, an empty line, and the text.
fn part(headers: &str, text: &str) -> String {
    if text.is_ascii() {
        format!("{headers}\n{text}")
    } else {
        format!("{headers}{ENCODED}\n{}", BASE64_STANDARD.encode(text))
    }
}

/// A line of its own that no part has; fleet's has none like it.
fn boundary(text: &str) -> String {
    let longer = |boundary: &String| Some(format!("{boundary}="));
    iter::successors(Some(BOUNDARY.to_owned()), longer)
        .find(|boundary| !text.contains(boundary.as_str()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "Python's parser is the one that cloud-init has"
    )]

    use std::{io::Write as _, process::Command, process::Stdio};

    use serde_json::{Value, json};

    use super::*;

    const OURS: &str = "#cloud-config\n{\n  \"runcmd\": []\n}\n";

    fn own(kind: UserDataKind, text: &str) -> UserData {
        UserData {
            file: "nodes".to_owned(),
            kind,
            text: text.to_owned(),
        }
    }

    #[test]
    fn golden_messages() {
        let config = own(
            UserDataKind::CloudConfig,
            "#cloud-config\npackages: [jq]\nruncmd:\n- jq --version\n",
        );
        let script = own(UserDataKind::Script, "#!/bin/sh\necho hello\n");
        insta::assert_snapshot!("with_cloud_config", joined(OURS.into(), Some(&config)));
        insta::assert_snapshot!("with_script", joined(OURS.into(), Some(&script)));
        assert_eq!(joined(OURS.into(), None), OURS);
    }

    /// Type, how it is merged, its file's name and what it holds.
    const READ: &str = "import email, json, sys\n\
        message = email.message_from_string(sys.stdin.buffer.read().decode())\n\
        parts = message.get_payload()\n\
        json.dump([[part.get_content_type(), part['Merge-Type'], part.get_filename(), \
        part.get_payload(decode=True).decode()] for part in parts], sys.stdout)\n";

    fn as_python_reads(message: &str) -> Value {
        let mut python = Command::new("python3")
            .args(["-c", READ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs: tests/setup.sh installs it");
        let mut input = python.stdin.take().expect("its input");
        input.write_all(message.as_bytes()).expect("written");
        drop(input);
        let ended = python.wait_with_output().expect("ends");
        serde_json::from_slice(&ended.stdout).expect("JSON")
    }

    #[test]
    fn every_part_is_read_as_it_was_written() {
        let texts = [
            "#!/bin/sh\n",
            "#!/bin/sh\necho no end of line",
            "#!/bin/sh\n\n\nFrom here\n--==fleet==\necho ü 🙂\n",
            "#!/bin/sh\r\necho --==fleet==--\r\n",
        ];
        for text in texts {
            for ours in [OURS.to_owned(), OURS.replace("[]", "[\"ü\\n\\n--x\"]")] {
                let theirs = own(UserDataKind::Script, text);
                let message = joined(ours.clone(), Some(&theirs));
                assert_eq!(first(&message).as_deref(), Some(ours.as_str()));
                assert_eq!(
                    as_python_reads(&message),
                    json!([
                        ["text/cloud-config", null, null, ours],
                        ["text/x-shellscript", null, "user-data", text],
                    ])
                );
            }
        }
        let theirs = own(UserDataKind::CloudConfig, "#cloud-config\n{}\n");
        let merged = &as_python_reads(&joined(OURS.into(), Some(&theirs)))[1];
        assert_eq!(merged[0], "text/cloud-config");
        assert_eq!(merged[1], "list(append)+dict(no_replace,recurse_list)");
    }

    #[test]
    fn what_somebody_else_wrote_is_taken_as_it_is_or_not_at_all() {
        assert_eq!(first(OURS).as_deref(), Some(OURS));
        for broken in ["", "\n\n--x", "\n\n--x\nA: b\n\nno end"] {
            assert_eq!(first(&format!("{HEAD}\"x\"{broken}")), None);
        }
    }
}
