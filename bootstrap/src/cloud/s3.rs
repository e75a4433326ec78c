//! The bucket that the agent is installed from, and objects of others that it may be.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    config::{
        Builder, RequestChecksumCalculation, ResponseChecksumValidation, timeout::TimeoutConfig,
    },
    error::SdkError,
    operation::head_object::{HeadObjectError, HeadObjectOutput},
    primitives::ByteStream,
    types::{
        BucketLocationConstraint, ChecksumAlgorithm, ChecksumMode, CreateBucketConfiguration,
        PublicAccessBlockConfiguration, Tag, Tagging,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::{CallError, Kind, failed, found, gone};
use crate::{inventory::Tags, preflight::S3Answer};

/// Where buckets are that name no region (CreateBucket).
const US_EAST_1: &str = "us-east-1";
/// The agent's megabytes over the line of a home office, once and with all attempts.
const UPLOAD_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(crate) struct S3 {
    client: Client,
}

impl S3 {
    /// `by_path` where the endpoint is not AWS's own, whose names have no buckets before them. Checksums
    /// are ours, where they matter.
    pub(super) fn new(config: Builder, by_path: bool) -> Self {
        let config = config
            .force_path_style(by_path)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// Tags of a bucket; `None` when there is none of this name, on all of AWS.
    pub(crate) async fn tags(&self, bucket: &str) -> Result<Option<Tags>, CallError> {
        let reply = self.client.get_bucket_tagging().bucket(bucket).send().await;
        match reply.map_err(failed("s3:GetBucketTagging", bucket)) {
            Ok(reply) => {
                let tags = reply.tag_set.into_iter();
                Ok(Some(tags.map(|tag| (tag.key, tag.value)).collect()))
            }
            Err(error) if error.code == "NoSuchTagSet" => Ok(Some(Tags::new())),
            Err(mut error) if error.kind == Kind::Denied => {
                error.message.push_str(
                    ": these credentials may not read its tags, or another account has a bucket of this name",
                );
                Err(error)
            }
            Err(error) => found(Err(error)),
        }
    }

    /// Whether nobody can make any of it public.
    pub(crate) async fn is_public_access_blocked(&self, bucket: &str) -> Result<bool, CallError> {
        let reply = self.client.get_public_access_block().bucket(bucket);
        let reply = reply.send().await;
        let reply = found(reply.map_err(failed("s3:GetBucketPublicAccessBlock", bucket)))?;
        let settings = reply.and_then(|reply| reply.public_access_block_configuration);
        Ok(settings == Some(all_blocked()))
    }

    /// Makes a bucket that has its tags from the first.
    pub(crate) async fn create(
        &self,
        bucket: &str,
        region: &str,
        tags: &Tags,
    ) -> Result<(), CallError> {
        let place = (region != US_EAST_1).then(|| BucketLocationConstraint::from(region));
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(place)
            .set_tags(Some(sdk_tags(tags)))
            .build();
        self.client
            .create_bucket()
            .bucket(bucket)
            .create_bucket_configuration(configuration)
            .send()
            .await
            .map(drop)
            .map_err(failed("s3:CreateBucket", bucket))
    }

    pub(crate) async fn block_public_access(&self, bucket: &str) -> Result<(), CallError> {
        self.client
            .put_public_access_block()
            .bucket(bucket)
            .public_access_block_configuration(all_blocked())
            .send()
            .await
            .map(drop)
            .map_err(failed("s3:PutBucketPublicAccessBlock", bucket))
    }

    /// Adds tags. S3 replaces all of them, so that those that are there are read right before.
    pub(crate) async fn tag(&self, bucket: &str, tags: &Tags) -> Result<(), CallError> {
        let mut all = self.tags(bucket).await?.unwrap_or_default();
        all.extend(tags.clone());
        let tagging = Tagging::builder().set_tag_set(Some(sdk_tags(&all)));
        let tagging = tagging.build().map_err(|_| {
            CallError::malformed("s3:PutBucketTagging", bucket, "tags that S3 would take")
        })?;
        self.client
            .put_bucket_tagging()
            .bucket(bucket)
            .tagging(tagging)
            .send()
            .await
            .map(drop)
            .map_err(failed("s3:PutBucketTagging", bucket))
    }

    /// The SHA-256 that S3 has of an object, in hexadecimal digits: empty of one that was sent without, or in
    /// parts. `None` when there is no such object.
    pub(crate) async fn sha256(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<String>, CallError> {
        let object = format!("{bucket}/{key}");
        match self.head(bucket, key).await {
            Ok(reply) => Ok(Some(sha256(&reply))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("s3:HeadObject", &object)(error)),
        }
    }

    /// What S3 says of somebody else's object. It answers without a body, hence by the status alone.
    pub(crate) async fn look(&self, bucket: &str, key: &str) -> Result<S3Answer, CallError> {
        let object = format!("{bucket}/{key}");
        match self.head(bucket, key).await {
            Ok(reply) => Ok(S3Answer::Sha256(sha256(&reply))),
            Err(error) => match status(&error) {
                Some(404) => Ok(S3Answer::Missing),
                Some(403) => Ok(S3Answer::Denied),
                Some(301 | 307) => Ok(S3Answer::Elsewhere),
                Some(400) if names_a_region(&error) => Ok(S3Answer::Elsewhere),
                Some(_) | None => Err(failed("s3:HeadObject", &object)(error)),
            },
        }
    }

    async fn head(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<HeadObjectOutput, SdkError<HeadObjectError, HttpResponse>> {
        let request = self.client.head_object().bucket(bucket).key(key);
        request.checksum_mode(ChecksumMode::Enabled).send().await
    }

    /// Sends an object that is not there yet, which S3 takes only if it has this SHA-256.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        sha256: &str,
        bytes: Vec<u8>,
    ) -> Result<(), CallError> {
        let slowly = TimeoutConfig::builder()
            .operation_attempt_timeout(UPLOAD_ATTEMPT_TIMEOUT)
            .operation_timeout(UPLOAD_TIMEOUT)
            .build();
        self.client
            .put_object()
            .bucket(bucket)
            .key(key)
            .if_none_match("*")
            .content_type("application/octet-stream")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(in_base64(sha256))
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(Builder::new().timeout_config(slowly))
            .send()
            .await
            .map(drop)
            .map_err(failed("s3:PutObject", &format!("{bucket}/{key}")))
    }

    /// Deletes a bucket and what is in it, every version: somebody may have had them kept.
    pub(crate) async fn delete(&self, bucket: &str) -> Result<(), CallError> {
        let mut key_marker = None;
        let mut version_marker = None;
        loop {
            let page = self
                .client
                .list_object_versions()
                .bucket(bucket)
                .set_key_marker(key_marker)
                .set_version_id_marker(version_marker)
                .send()
                .await
                .map_err(failed("s3:ListBucketVersions", bucket));
            let Some(page) = found(page)? else {
                return Ok(());
            };
            let versions = page.versions().iter();
            let versions = versions.map(|version| (version.key(), version.version_id()));
            let markers = page.delete_markers().iter();
            let markers = markers.map(|marker| (marker.key(), marker.version_id()));
            for (key, version) in versions.chain(markers) {
                let key = key.unwrap_or_default();
                let reply = self.client.delete_object().bucket(bucket).key(key);
                let reply = reply.set_version_id(version.map(str::to_owned));
                let object = format!("{bucket}/{key}");
                gone(
                    reply
                        .send()
                        .await
                        .map_err(failed("s3:DeleteObjectVersion", &object)),
                )?;
            }
            if page.is_truncated != Some(true) {
                break;
            }
            key_marker = page.next_key_marker;
            version_marker = page.next_version_id_marker;
        }
        let reply = self.client.delete_bucket().bucket(bucket).send().await;
        gone(reply.map_err(failed("s3:DeleteBucket", bucket)))
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
}

/// Of a call that was signed for another region than the bucket's S3 says which that is, with status 400 (S3 guide,
/// "Error responses", AuthorizationHeaderMalformed).
fn names_a_region<E>(error: &SdkError<E, HttpResponse>) -> bool {
    let headers = error.raw_response().map(HttpResponse::headers);
    headers.is_some_and(|headers| headers.contains_key("x-amz-bucket-region"))
}

fn all_blocked() -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build()
}

/// In hexadecimal digits. That of an object in parts is of the parts' own, and ends in their number.
fn sha256(reply: &HeadObjectOutput) -> String {
    let decoded = reply
        .checksum_sha256()
        .and_then(|sum| BASE64_STANDARD.decode(sum).ok());
    let bytes = decoded.unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of hexadecimal digits, which a pinned sum has been checked to be.
fn in_base64(sha256: &str) -> String {
    let digits = sha256.as_bytes().chunks(2);
    let bytes = digits.filter_map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    BASE64_STANDARD.encode(bytes.collect::<Vec<u8>>())
}

fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    let tags = tags.iter();
    tags.filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_s3_writes_them() {
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let encoded = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(in_base64(sum), encoded);
        let reply = |sum: &str| HeadObjectOutput::builder().checksum_sha256(sum).build();
        assert_eq!(sha256(&reply(encoded)), sum);
        assert_eq!(sha256(&reply(&format!("{encoded}-2"))), "");
        assert_eq!(sha256(&HeadObjectOutput::builder().build()), "");
    }
}
