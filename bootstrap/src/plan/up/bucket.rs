//! The bucket that the agent is installed from.

use super::Up;
use crate::{
    desired::{self, BUCKET_TAG, Group},
    inventory::Tags,
    plan::{BucketStep, Mark, Steps, Taggable, describe},
};

impl<'a> Up<'a> {
    /// A group's own tags, and on its launch template what tells of the bucket for as long as that stands.
    pub(super) fn template_tags(&self, group: &Group) -> Tags {
        let mut tags = group.tags.clone();
        let bucket = &self.desired.bucket;
        if bucket.upload.is_some() {
            tags.insert(BUCKET_TAG.to_owned(), bucket.name.clone());
        }
        tags
    }

    /// Once for all groups: after the first launch template, whose tag tells of it, and before anything is
    /// launched. What the file does not ask for any more stays until `down`: nodes may still be launched from
    /// it, and a roll that fails goes back to it.
    pub(super) fn bucket(&mut self, after: &[usize]) -> Steps {
        let bucket = &self.desired.bucket;
        let Some(upload) = &bucket.upload else {
            return Steps::new();
        };
        if let Some(steps) = &self.bucket {
            return steps.clone();
        }
        let steps = self.bucket_steps(bucket, upload, after);
        self.bucket = Some(steps.clone());
        steps
    }

    fn bucket_steps(
        &mut self,
        bucket: &'a desired::Bucket,
        upload: &'a desired::Upload,
        after: &[usize],
    ) -> Steps {
        const KIND: &str = "bucket";
        let (name, found) = (&bucket.name, self.inventory.bucket.owned());
        let mut details = Vec::new();
        let mut steps = Steps::new();
        let mut ready = Steps::new();
        match found {
            None => {
                details.push("public access blocked".to_owned());
                let create = BucketStep::Create {
                    name: name.clone(),
                    region: self.desired.identity.region.clone(),
                    tags: bucket.tags.clone(),
                };
                ready.push(self.builder.step(create, after.iter().copied()));
            }
            Some(found) => {
                let resource = Taggable::Bucket(name.clone());
                steps = self.tags(resource, &bucket.tags, &found.tags, []);
                details = describe::tagged(&steps);
                if !found.is_public_access_blocked {
                    details.push("public access off, blocked again".to_owned());
                }
            }
        }
        if found.is_none_or(|found| !found.is_public_access_blocked) {
            let block = BucketStep::BlockPublicAccess { name: name.clone() };
            ready = vec![self.builder.step(block, ready)];
        }
        // One that is there was checked to be this one.
        if found.is_none_or(|found| found.object.is_none()) {
            details.push(format!("gets {}", describe::agent(&upload.sha256)));
            let send = BucketStep::Upload {
                bucket: name.clone(),
                key: upload.key.clone(),
                sha256: upload.sha256.clone(),
                file: upload.file.clone(),
            };
            ready = vec![self.builder.step(send, ready)];
        }
        steps.extend(ready);
        match found {
            None => self
                .builder
                .line(Mark::Create, KIND, name, details.join(", ")),
            Some(_) => self.keep_or_change(KIND, name, details),
        }
        steps
    }
}
