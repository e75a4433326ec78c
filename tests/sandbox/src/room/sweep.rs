//! Removes whatever Docker still holds of a sandbox, found by its label alone: it works after any
//! crash, and twice.

use anyhow::Context as _;
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
        RemoveVolumeOptionsBuilder,
    },
};
use futures_util::future::try_join_all;

use crate::{
    docker::{by_label, is_absent, is_in_progress},
    paths::LABEL,
};

/// Removes containers, then what they used. Returns how many things were removed.
pub(crate) async fn sweep(docker: &Docker, sandbox: &str) -> anyhow::Result<usize> {
    let mut removed = containers(docker, sandbox).await?;
    removed += volumes(docker, sandbox).await?;
    removed += networks(docker, sandbox).await?;
    removed += images(docker, sandbox).await?;
    Ok(removed)
}

async fn containers(docker: &Docker, sandbox: &str) -> anyhow::Result<usize> {
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&by_label(LABEL, sandbox))
        .build();
    let found = docker
        .list_containers(Some(options))
        .await
        .context("docker: list containers")?;
    let ids = found.into_iter().filter_map(|container| container.id);
    let removals = ids.map(|id| async move {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        gone(docker.remove_container(&id, Some(options)).await)
            .with_context(|| format!("docker: remove container {id}"))
    });
    Ok(try_join_all(removals).await?.len())
}

async fn volumes(docker: &Docker, sandbox: &str) -> anyhow::Result<usize> {
    let options = ListVolumesOptionsBuilder::new()
        .filters(&by_label(LABEL, sandbox))
        .build();
    let found = docker
        .list_volumes(Some(options))
        .await
        .context("docker: list volumes")?;
    let removals = found
        .volumes
        .unwrap_or_default()
        .into_iter()
        .map(|volume| async move {
            let options = RemoveVolumeOptionsBuilder::new().force(true).build();
            gone(docker.remove_volume(&volume.name, Some(options)).await)
                .with_context(|| format!("docker: remove volume {}", volume.name))
        });
    Ok(try_join_all(removals).await?.len())
}

async fn networks(docker: &Docker, sandbox: &str) -> anyhow::Result<usize> {
    let options = ListNetworksOptionsBuilder::new()
        .filters(&by_label(LABEL, sandbox))
        .build();
    let found = docker
        .list_networks(Some(options))
        .await
        .context("docker: list networks")?;
    let ids = found.into_iter().filter_map(|network| network.id);
    let removals = ids.map(|id| async move {
        gone(docker.remove_network(&id).await)
            .with_context(|| format!("docker: remove network {id}"))
    });
    Ok(try_join_all(removals).await?.len())
}

/// Only baked images carry a sandbox's label; the node image is everybody's.
async fn images(docker: &Docker, sandbox: &str) -> anyhow::Result<usize> {
    let options = ListImagesOptionsBuilder::new()
        .filters(&by_label(LABEL, sandbox))
        .build();
    let found = docker
        .list_images(Some(options))
        .await
        .context("docker: list images")?;
    let removals = found.into_iter().map(|image| async move {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        gone(
            docker
                .remove_image(&image.id, Some(options), None)
                .await
                .map(drop),
        )
        .with_context(|| format!("docker: remove image {}", image.id))
    });
    Ok(try_join_all(removals).await?.len())
}

/// Somebody else may be removing the same thing: the daemon, or a second `down`.
fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_absent(&error) || is_in_progress(&error) => Ok(()),
        other => other,
    }
}
