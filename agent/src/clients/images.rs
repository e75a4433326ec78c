//! Docker's images, and what may be removed of them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, PruneBuildOptionsBuilder,
    PruneVolumesOptionsBuilder, RemoveImageOptionsBuilder,
};
use jiff::Timestamp;

use super::docker::{Dockerd, bounded};
use crate::health::disk::Image;

const LIST: Duration = Duration::from_secs(60);
/// Removing layers is slow on a disk that is full.
const REMOVE: Duration = Duration::from_secs(180);

impl Dockerd {
    /// Where Docker keeps everything: `/var/lib/docker`, unless a data volume was set up.
    pub(crate) async fn data_root(&self) -> Result<Option<String>> {
        let docker = self.handle().await?;
        let info = bounded(LIST, docker.info()).await.context("docker: info")?;
        Ok(info.docker_root_dir)
    }

    /// All images, and those that any container refers to, running or not.
    pub(crate) async fn images(&self) -> Result<(Vec<Image>, BTreeSet<String>)> {
        let docker = self.handle().await?;
        let all = ListContainersOptionsBuilder::new().all(true).build();
        // Containers first: one that is created meanwhile keeps its image from being removed anyway.
        let containers = bounded(LIST, docker.list_containers(Some(all)))
            .await
            .context("docker: list containers")?;
        let used = containers
            .into_iter()
            .filter_map(|container| container.image_id);
        let used = used.collect();
        let options = ListImagesOptionsBuilder::new().build();
        let listed = bounded(LIST, docker.list_images(Some(options)))
            .await
            .context("docker: list images")?;
        let mut images = Vec::new();
        for summary in listed {
            let names = [summary.repo_tags, summary.repo_digests].concat();
            let made = Timestamp::from_second(summary.created).unwrap_or_default();
            let inspected = match bounded(LIST, docker.inspect_image(&summary.id)).await {
                Ok(inspected) => inspected,
                // Somebody else was quicker.
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error).context("docker: inspect an image"),
            };
            let tagged = inspected
                .metadata
                .and_then(|metadata| metadata.last_tag_time)
                .and_then(|at| at.parse().ok());
            images.push(Image {
                id: summary.id,
                names,
                since: tagged.map_or(made, |tagged: Timestamp| tagged.max(made)),
            });
        }
        Ok((images, used))
    }

    /// Removes an image under all its names; false if it turned out to be in use.
    pub(crate) async fn remove_image(&self, image: &Image) -> Result<bool> {
        let docker = self.handle().await?;
        // By name, and never forced: an image that a container was made from meanwhile stays.
        let by_id = std::slice::from_ref(&image.id);
        let names = if image.names.is_empty() {
            by_id
        } else {
            &image.names
        };
        for name in names {
            let options = RemoveImageOptionsBuilder::new().build();
            let removed = bounded(REMOVE, docker.remove_image(name, Some(options), None)).await;
            match removed {
                Err(error) if error.is_conflict() => return Ok(false),
                Err(error) if error.is_missing() => {}
                other => drop(other.with_context(|| format!("docker: remove image {name}"))?),
            }
        }
        Ok(true)
    }

    /// Removes what builds have left to be quicker the next time.
    pub(crate) async fn remove_build_cache(&self) -> Result<()> {
        let docker = self.handle().await?;
        let options = PruneBuildOptionsBuilder::new().all(true).build();
        bounded(REMOVE, docker.prune_build(Some(options)))
            .await
            .context("docker: remove the build cache")
            .map(drop)
    }

    /// Removes volumes that no container refers to, with their data.
    pub(crate) async fn remove_volumes(&self) -> Result<()> {
        let docker = self.handle().await?;
        let all = std::collections::HashMap::from([("all", vec!["true"])]);
        let options = PruneVolumesOptionsBuilder::new().filters(&all).build();
        bounded(REMOVE, docker.prune_volumes(Some(options)))
            .await
            .context("docker: remove volumes")
            .map(drop)
    }
}
