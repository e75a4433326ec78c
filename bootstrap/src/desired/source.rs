//! How nodes come by the agent that their image does not carry, and the bucket that holds it where the
//! file names a binary of one's own.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::{names, policy::partition};
use crate::spec::{self, Place};

/// What a key begins with; the rest is the binary's SHA-256, so that an object never has to change.
const PREFIX: &str = "fleet-agent/";

/// What a node downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub download: Download,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Where the agent is for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Download {
    /// For everybody.
    Url(String),
    /// For whom S3 lets read it.
    S3(S3Object),
}

/// An object in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Object {
    /// The bucket's region.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
}

/// The environment's own bucket, which there is where the file names a binary of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name, which nobody else on AWS has.
    pub name: String,
    /// Ownership and the file's own tags.
    pub tags: BTreeMap<String, String>,
    /// What it is for; without it there is none to be made.
    pub upload: Option<Upload>,
}

/// The agent's binary on its way into the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its key, which carries the SHA-256.
    pub key: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The file here, which is read only to be sent.
    pub file: PathBuf,
}

impl Source {
    /// What the file asks for; `bucket` is the environment's own.
    pub(super) fn of(spec: &spec::Spec, bucket: &Bucket) -> Option<Self> {
        let source = spec.agent.source.as_ref()?;
        let object = |bucket: &str, key: String| {
            Download::S3(S3Object {
                region: spec.region.clone(),
                bucket: bucket.to_owned(),
                key,
            })
        };
        let download = match &source.place {
            Place::Url(url) => Download::Url(url.clone()),
            Place::S3 { bucket, key } => object(bucket, key.clone()),
            Place::File(_) => object(&bucket.name, key(&source.sha256)),
        };
        Some(Self {
            download,
            sha256: source.sha256.clone(),
        })
    }

    /// What a node's role has to read. Of one's own bucket all that ever was an agent: while groups go from
    /// one to the next, and back, nodes are launched with either.
    pub(super) fn readable(&self, bucket: &Bucket) -> Option<String> {
        match &self.download {
            Download::Url(_) => None,
            Download::S3(_) if bucket.upload.is_some() => {
                Some(format!("{}/{PREFIX}*", bucket.name))
            }
            Download::S3(S3Object { bucket, key, .. }) => Some(format!("{bucket}/{key}")),
        }
    }
}

impl Bucket {
    pub(super) fn of(spec: &spec::Spec, tags: BTreeMap<String, String>) -> Self {
        let spec::Spec {
            fleet,
            environment,
            region,
            owner,
            ..
        } = spec;
        let upload = spec.agent.source.as_ref().and_then(|source| {
            let Place::File(file) = &source.place else {
                return None;
            };
            Some(Upload {
                key: key(&source.sha256),
                sha256: source.sha256.clone(),
                file: file.clone(),
            })
        });
        Self {
            name: names::bucket(fleet, environment, region, owner),
            tags,
            upload,
        }
    }
}

fn key(sha256: &str) -> String {
    format!("{PREFIX}{sha256}")
}

impl S3Object {
    /// Its address. A certificate for all buckets covers no name with a dot in it (S3 guide, "Virtual
    /// hosting of general purpose buckets").
    pub(super) fn address(&self) -> String {
        let Self {
            region,
            bucket,
            key,
        } = self;
        // botocore, partitions.json.
        let domain = match partition(region) {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        };
        if bucket.contains('.') {
            format!("https://s3.{region}.{domain}/{bucket}/{key}")
        } else {
            format!("https://{bucket}.s3.{region}.{domain}/{key}")
        }
    }
}

impl fmt::Display for S3Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl fmt::Display for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::S3(object) => object.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_the_address_that_its_region_and_its_bucket_ask_for() {
        let address = |region: &str, bucket: &str| {
            let object = S3Object {
                region: region.to_owned(),
                bucket: bucket.to_owned(),
                key: "a/b".to_owned(),
            };
            object.address()
        };
        for (region, bucket, expected) in [
            (
                "eu-central-1",
                "ours",
                "https://ours.s3.eu-central-1.amazonaws.com/a/b",
            ),
            (
                "us-east-1",
                "o.urs",
                "https://s3.us-east-1.amazonaws.com/o.urs/a/b",
            ),
            (
                "cn-north-1",
                "ours",
                "https://ours.s3.cn-north-1.amazonaws.com.cn/a/b",
            ),
            (
                "us-gov-west-1",
                "ours",
                "https://ours.s3.us-gov-west-1.amazonaws.com/a/b",
            ),
        ] {
            assert_eq!(address(region, bucket), expected);
        }
    }
}
