//! The bucket that the agent is installed from.

use anyhow::{Context, Result, anyhow, bail};

use super::{Apply, IAM_LIMIT, is_ours};
use crate::{
    cloud::{CallError, Kind},
    plan::BucketStep,
    spec,
};

impl Apply<'_> {
    pub(super) async fn bucket(&self, step: &BucketStep) -> Result<()> {
        let s3 = &self.cloud.s3;
        match step {
            BucketStep::Create { name, region, tags } => {
                // One of this name that has just been deleted is in the way for a while.
                let create = || s3.create(name, region, tags);
                let created = self.tried(step.title(), IAM_LIMIT, super::is_in_use, create);
                match created.await? {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        is_ours(error, tags, s3.tags(name).await?)
                    }
                    other => Ok(other?),
                }
            }
            BucketStep::BlockPublicAccess { name } => {
                self.patiently(step.title(), IAM_LIMIT, is_new, || {
                    s3.block_public_access(name)
                })
                .await
            }
            BucketStep::Upload {
                bucket,
                key,
                sha256,
                file,
            } => {
                let bytes = spec::pinned_bytes(file, sha256).map_err(|why| anyhow!(why))?;
                let sent = self.tried(step.title(), IAM_LIMIT, is_new, || {
                    s3.put(bucket, key, sha256, bytes.clone())
                });
                match sent.await? {
                    // By an earlier attempt, whose answer was lost, or by somebody else's run of this.
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let found = s3.sha256(bucket, key).await?;
                        if found.as_ref() == Some(sha256) {
                            return Ok(());
                        }
                        bail!(
                            "{error:#}, and it holds something else: remove it, then run this again"
                        )
                    }
                    other => other.context("the agent was not sent"),
                }
            }
            BucketStep::Delete { name } => {
                self.patiently(step.title(), IAM_LIMIT, super::is_in_use, || {
                    s3.delete(name)
                })
                .await
            }
        }
    }
}

/// A bucket is known everywhere within seconds, and takes one change at a time.
fn is_new(error: &CallError) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::InUse)
}
