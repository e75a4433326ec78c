//! Where nodes have the agent from that their image does not carry.
//!
//! A `file` is read for its checksum only where the file does not pin it: with `sha256` it is needed only
//! where it is sent, so that whoever looks, drains or removes does without.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fleet_agent_config::Problem;
use sha2::{Digest, Sha256};

use super::{shapes, wire};

/// Many times what the agent has, bytes: a file beyond is a mistake.
const FILE_MAX: u64 = 128 * 1024 * 1024;

/// The agent's binary, and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub place: Place,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Where the agent's binary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `https://`, or `http://` within a private network; safe within single quotes of a shell.
    Url(String),
    /// An object of somebody's in the fleet's region; both safe within single quotes and in an address as
    /// they are.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Without a slash before it.
        key: String,
    },
    /// Here, to be sent to a bucket of the environment's own.
    File(PathBuf),
}

/// What the file says, unless nothing can be made of it.
pub(super) fn read(
    key: &str,
    source: wire::Source,
    directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Source> {
    let wire::Source {
        url,
        s3,
        file,
        sha256,
    } = source;
    let mut problem = |field: &str, message: String| {
        problems.push(Problem::new(format!("{key}{field}"), message));
    };
    let named = [("url", &url), ("s3", &s3), ("file", &file)];
    let named: Vec<&str> = named
        .into_iter()
        .filter_map(|(name, value)| value.is_some().then_some(name))
        .collect();
    match named.as_slice() {
        [_] => {}
        [] => problem(
            "",
            "says nowhere to have the agent from: name one of `url`, `s3` and `file`".to_owned(),
        ),
        several => problem(
            "",
            format!(
                "names {}, and nodes have the agent from one place: keep one (an environment takes out what it shares by `unset`)",
                several.join(" and ")
            ),
        ),
    }
    if let Some(wrong) = sha256.as_deref().and_then(shapes::sha256) {
        problem(".sha256", wrong);
    }
    if sha256.is_none() && file.is_none() && !named.is_empty() {
        let missing = "is missing: fill in what `sha256sum fleet-agent` prints";
        problem(".sha256", missing.to_owned());
    }
    let sha256 = sha256.map(|sum| sum.to_ascii_lowercase());
    let place = match (url, s3, file) {
        (Some(url), None, None) => {
            if let Some(wrong) = shapes::download_url(&url) {
                problem(".url", wrong);
            }
            Place::Url(url)
        }
        (None, Some(address), None) => match shapes::s3_object(&address) {
            Ok((bucket, key)) => Place::S3 { bucket, key },
            Err(wrong) => {
                problem(".s3", wrong);
                return None;
            }
        },
        (None, None, Some(name)) => {
            let path = directory.join(&name);
            let sha256 = match sha256 {
                Some(sha256) => sha256,
                None => match sha256_of(&path) {
                    Ok(sha256) => sha256,
                    Err(why) => {
                        problem(
                            ".file",
                            format!(
                                "`{name}` cannot be read: {why}; with its sha256 beside it, it is needed only where it is sent"
                            ),
                        );
                        return None;
                    }
                },
            };
            return Some(Source {
                place: Place::File(path),
                sha256,
            });
        }
        _ => return None,
    };
    Some(Source {
        place,
        sha256: sha256.unwrap_or_default(),
    })
}

/// What the file holds.
///
/// # Errors
/// When it cannot be read, or is no binary by its size.
pub(crate) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.is_empty() || bytes.len() as u64 > FILE_MAX {
        let size = format!("it is empty, or larger than {FILE_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, size));
    }
    Ok(bytes)
}

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// As [`bytes_of`].
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    Ok(hex(&Sha256::digest(bytes_of(path)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file's bytes, if they are what they should be.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub(crate) fn pinned_bytes(path: &Path, sha256: &str) -> Result<Vec<u8>, String> {
    let name = path.display();
    let bytes = bytes_of(path).map_err(|why| {
        format!("`{name}` has to be sent to the environment's bucket and cannot be read: {why}")
    })?;
    let found = hex(&Sha256::digest(&bytes));
    if found == sha256 {
        return Ok(bytes);
    }
    Err(format!(
        "`{name}` has SHA-256 {found}, and {sha256} has to be sent: correct `sha256`, or the file"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn told(source: wire::Source, directory: &Path) -> (Option<Source>, String) {
        let mut problems = Vec::new();
        let read = read("agent.source", source, directory, &mut problems);
        let lines = problems
            .iter()
            .map(|p| format!("{}: {}\n", p.key, p.message));
        (read, lines.collect())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn one_place_and_what_it_holds() {
        let here = Path::new("/nowhere");
        let sum = "Ab".repeat(32);
        let (read, wrong) = told(
            wire::Source {
                s3: some("s3://releases.example/a/fleet-agent_1~b"),
                sha256: Some(sum.clone()),
                ..wire::Source::default()
            },
            here,
        );
        let read = read.unwrap_or_else(|| panic!("{wrong}"));
        assert_eq!(read.sha256, sum.to_ascii_lowercase());
        let place = Place::S3 {
            bucket: "releases.example".to_owned(),
            key: "a/fleet-agent_1~b".to_owned(),
        };
        assert_eq!(read.place, place);

        // Pinned, it need not be there.
        let pinned = wire::Source {
            file: some("dist/fleet-agent"),
            sha256: Some(sum.clone()),
            ..wire::Source::default()
        };
        let (read, wrong) = told(pinned, here);
        let place = Place::File("/nowhere/dist/fleet-agent".into());
        assert_eq!(read.expect("read").place, place, "{wrong}");

        let (read, wrong) = told(wire::Source::default(), here);
        assert!(
            read.is_none() && wrong.contains("agent.source: says nowhere"),
            "{wrong}"
        );
        let several = wire::Source {
            url: some("https://example.com/a"),
            file: some("a"),
            ..wire::Source::default()
        };
        let (read, wrong) = told(several, here);
        assert!(
            read.is_none() && wrong.contains("agent.source: names url and file"),
            "{wrong}"
        );
        let unpinned = wire::Source {
            url: some("ftp://example.com/a"),
            sha256: some("00"),
            ..wire::Source::default()
        };
        let (_, wrong) = told(unpinned, here);
        assert!(wrong.contains("agent.source.url: "), "{wrong}");
        assert!(
            wrong.contains("agent.source.sha256: is not a SHA-256"),
            "{wrong}"
        );
        let unpinned = wire::Source {
            s3: some("s3://releases/a"),
            ..wire::Source::default()
        };
        let (_, wrong) = told(unpinned, here);
        assert!(wrong.contains("agent.source.sha256: is missing"), "{wrong}");
    }

    #[test]
    fn an_unpinned_file_is_what_it_holds_at_the_moment() {
        let directory = tempfile::tempdir().expect("directory");
        let file = || wire::Source {
            file: some("fleet-agent"),
            ..wire::Source::default()
        };
        let (read, wrong) = told(file(), directory.path());
        assert!(read.is_none());
        assert!(
            wrong.starts_with("agent.source.file: `fleet-agent` cannot be read: ")
                && wrong.contains("with its sha256 beside it"),
            "{wrong}"
        );
        let path = directory.path().join("fleet-agent");
        fs::write(&path, "").expect("written");
        assert!(told(file(), directory.path()).1.contains("it is empty"));
        fs::write(&path, "abc").expect("written");
        let (read, wrong) = told(file(), directory.path());
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read.expect("read").sha256, sum, "{wrong}");
        assert_eq!(pinned_bytes(&path, sum).expect("the same"), b"abc");
        let other = pinned_bytes(&path, &"0".repeat(64)).expect_err("another");
        assert!(other.contains(sum), "{other}");
    }
}
