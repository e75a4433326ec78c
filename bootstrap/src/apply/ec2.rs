//! Security groups and launch templates.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::time::Instant;

use anyhow::{Context, Result};

use super::{Apply, RELEASE_LIMIT, is_in_use, is_ours};
use crate::{
    cloud::Kind,
    inventory::{SecurityGroupRef, Template},
    plan::Ec2Step,
    watch::POLL,
};

impl Apply<'_> {
    pub(super) async fn ec2(&self, step: &Ec2Step) -> Result<()> {
        let ec2 = &self.cloud.ec2;
        match step {
            Ec2Step::CreateSecurityGroup {
                name,
                description,
                vpc_id,
                tags,
            } => {
                let created = ec2.create_security_group(name, description, vpc_id, tags);
                let id = match created.await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(name);
                        let mut found = ec2.security_groups(vpc_id, names).await?;
                        let found = found.remove(name);
                        let id = found.as_ref().map(|group| group.id.clone());
                        is_ours(error, tags, found.map(|group| group.tags))?;
                        id.unwrap_or_default()
                    }
                    other => other?,
                };
                self.made().security_groups.insert(name.clone(), id);
                Ok(())
            }
            Ec2Step::RevokeIngress { id, rules, .. } => Ok(ec2.revoke_ingress(id, rules).await?),
            Ec2Step::DeleteSecurityGroup { name, id } => self.delete_security_group(name, id).await,
            Ec2Step::CreateLaunchTemplate {
                name,
                template,
                tags,
            } => {
                let groups = self.security_groups(template)?;
                let created = ec2.create_launch_template(name, template, groups, tags);
                let version = match created.await {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(name);
                        let found = ec2.launch_templates(names).await?.remove(name);
                        let version = found.as_ref().map(|template| template.latest_version);
                        is_ours(error, tags, found.map(|template| template.tags))?;
                        version.unwrap_or(1)
                    }
                    other => {
                        other?;
                        1
                    }
                };
                self.made().versions.insert(name.clone(), version);
                Ok(())
            }
            Ec2Step::CreateLaunchTemplateVersion { name, template } => {
                let groups = self.security_groups(template)?;
                let created = ec2.create_launch_template_version(name, template, groups);
                let version = created.await?;
                self.made().versions.insert(name.clone(), version);
                Ok(())
            }
            Ec2Step::DeleteLaunchTemplate { name } => Ok(ec2.delete_launch_template(name).await?),
        }
    }

    async fn delete_security_group(&self, name: &str, id: &str) -> Result<()> {
        let ec2 = &self.cloud.ec2;
        let began = Instant::now();
        loop {
            let error = match ec2.delete_security_group(id).await {
                Ok(()) => {
                    self.progress.settled(name);
                    return Ok(());
                }
                Err(error) if is_in_use(&error) => error,
                Err(error) => return Err(error.into()),
            };
            let holders = ec2.holders(id).await?.join(", ");
            if began.elapsed() >= RELEASE_LIMIT {
                return Err(error).context(format!("still held by {holders}"));
            }
            self.progress.live(name, &format!("waits for {holders}"));
            self.watch.pause(POLL).await?;
        }
    }

    fn security_groups(&self, template: &Template) -> Result<Vec<String>> {
        let made = self.made();
        let id = |group: &SecurityGroupRef| match group {
            SecurityGroupRef::Id(id) => Ok(id.clone()),
            SecurityGroupRef::Created(name) => {
                let id = made.security_groups.get(name).cloned();
                id.with_context(|| format!("security group {name} was not created before: a bug"))
            }
        };
        template.security_groups.iter().map(id).collect()
    }
}
