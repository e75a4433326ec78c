//! Which Docker image a machine boots from: the node image built by `image/build`, or one baked
//! from it with the agent inside, or one made of a machine, as Packer makes an AMI.

#![allow(
    clippy::disallowed_methods,
    reason = "baking runs the docker command: only it packs a build context"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use bollard::{
    Docker, body_full,
    models::{ContainerConfig, ContainerCreateBody},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptionsBuilder,
        DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder, TagImageOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::{
    docker,
    paths::{LABEL, Paths},
};

/// The image of the pause container, of tasks and of sidecars.
pub(crate) const BUSYBOX: &str = "fleet-sandbox/busybox:1";

/// The script that builds the images.
pub(crate) const BUILD_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image/build");

/// The files `image/build` sums up, in its order.
const RECIPE: &[&[u8]] = &[
    include_bytes!("../image/build"),
    include_bytes!("../image/cure"),
    include_bytes!("../image/root/etc/cloud/cloud.cfg.d/90-fleet-sandbox.cfg"),
    include_bytes!("../image/root/etc/docker/daemon.json"),
    include_bytes!("../image/root/etc/systemd/system/ecs.service"),
    include_bytes!("../image/root/etc/systemd/system/sandbox-images.service"),
    include_bytes!("../image/root/etc/systemd/system/sandbox-journal.service"),
    include_bytes!("../image/root/usr/local/sbin/node-entrypoint"),
];

const AGENT_UNIT: &str = include_str!("../../../systemd/fleet-agent.service");
const DRAIN_UNIT: &str = include_str!("../../../systemd/fleet-drain.service");
const CATALOG: &str = include_str!("../../../systemd/fleet.catalog");
const AGENT_GATE: &str = include_str!("../../../systemd/10-fleet.conf");

/// Tag of the node image that belongs to this program's recipe.
pub(crate) fn node_tag() -> String {
    let mut sum = Sha256::new();
    for file in RECIPE {
        sum.update(file);
    }
    let hex: String = sum
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("fleet-sandbox/node:{}", &hex[..12])
}

/// Repository of the images baked as AMIs; their ids are its tags.
const BAKED: &str = "fleet-sandbox/baked";

/// Where a machine's Docker keeps what it holds, and what that lies in.
const DOCKER_DATA: (&str, &str) = ("/var/lib", "docker");

/// Tag of the image baked as this AMI.
fn baked_tag(image_id: &str) -> String {
    format!("{BAKED}:{image_id}")
}

/// The image a machine with this AMI id boots from. An AMI that was not baked here stands for
/// Amazon's own.
pub(crate) async fn of_ami(docker: &Docker, image_id: &str) -> anyhow::Result<String> {
    let baked = baked_tag(image_id);
    Ok(if docker::has_image(docker, &baked).await? {
        baked
    } else {
        node_tag()
    })
}

/// Fails, saying what to do, unless both images are there.
pub(crate) async fn require_built(docker: &Docker) -> anyhow::Result<()> {
    for tag in [node_tag().as_str(), BUSYBOX] {
        if !docker::has_image(docker, tag).await? {
            bail!("no Docker image {tag}: build it with {BUILD_SCRIPT} (about a minute)");
        }
    }
    Ok(())
}

/// Bakes the image of AMI `image_id`: the node image with `agent` as /usr/bin/fleet-agent, its units
/// enabled, its messages explained and ecs.service gated. Without an agent, the image of a bake that lost it.
pub(crate) fn bake(sandbox: &str, agent: Option<&Path>, image_id: &str) -> anyhow::Result<()> {
    let context = tempdir(sandbox, image_id)?;
    let baked = stage(&context, agent).and_then(|()| build(sandbox, &context, image_id));
    fs::remove_dir_all(&context).with_context(|| format!("remove {}", context.display()))?;
    baked
}

/// Makes AMI `image_id` of the machine in this container, which is off: of its root, and of what its Docker
/// holds, which lies on a volume that a commit leaves out. A new machine's volume begins with what its image has
/// there. Lost is what a layer of an image in it deletes: a commit reads that as deleted from the machine.
pub(crate) async fn snapshot(
    docker: &Docker,
    container: &str,
    image_id: &str,
) -> anyhow::Result<()> {
    let (directory, name) = DOCKER_DATA;
    let root = commit(docker, container, None).await?;
    let path = format!("{directory}/{name}");
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(&path)
        .build();
    let data = docker.download_from_container(container, Some(options));
    let data: Vec<_> = data
        .try_collect()
        .await
        .with_context(|| format!("docker: read {path} of {container}"))?;

    let staging = format!("{container}-image");
    let options = CreateContainerOptionsBuilder::new().name(&staging).build();
    let body = ContainerCreateBody {
        image: Some(root),
        ..Default::default()
    };
    docker
        .create_container(Some(options), body)
        .await
        .with_context(|| format!("docker: create container {staging}"))?;
    let options = UploadToContainerOptionsBuilder::new()
        .path(directory)
        .build();
    let filled = docker
        .upload_to_container(&staging, Some(options), body_full(data.concat().into()))
        .await
        .with_context(|| format!("docker: write {path} of {staging}"));
    let made = match filled {
        Ok(()) => commit(docker, &staging, Some(image_id)).await.map(drop),
        Err(error) => Err(error),
    };
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    let removed = docker.remove_container(&staging, Some(options)).await;
    made.and(removed.with_context(|| format!("docker: remove container {staging}")))
}

/// The image of a container, which has its labels; of an AMI if it is one.
async fn commit(
    docker: &Docker,
    container: &str,
    image_id: Option<&str>,
) -> anyhow::Result<String> {
    let mut options = CommitContainerOptionsBuilder::new().container(container);
    if let Some(image_id) = image_id {
        options = options.repo(BAKED).tag(image_id);
    }
    let made = docker
        .commit_container(options.build(), ContainerConfig::default())
        .await
        .with_context(|| format!("docker: commit container {container}"))?;
    Ok(made.id)
}

/// Gives what AMI `from` stands for to AMI `to`, too.
pub(crate) async fn copy(docker: &Docker, from: &str, to: &str) -> anyhow::Result<()> {
    let image = of_ami(docker, from).await?;
    let options = TagImageOptionsBuilder::new().repo(BAKED).tag(to).build();
    docker
        .tag_image(&image, Some(options))
        .await
        .with_context(|| format!("docker: tag {image} for {to}"))
}

fn tempdir(sandbox: &str, image_id: &str) -> anyhow::Result<PathBuf> {
    let path = Paths::of(sandbox)?
        .directory()
        .join(format!("bake-{image_id}"));
    fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(path)
}

fn stage(context: &Path, agent: Option<&Path>) -> anyhow::Result<()> {
    let units = context.join("root/etc/systemd/system");
    let bin = context.join("root/usr/bin");
    let catalog = context.join("root/usr/lib/systemd/catalog");
    for directory in [
        catalog.clone(),
        units.join("multi-user.target.wants"),
        units.join("ecs.service.d"),
        bin.clone(),
    ] {
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    if let Some(agent) = agent {
        let program = bin.join("fleet-agent");
        fs::copy(agent, &program)
            .with_context(|| format!("copy the agent from {}", agent.display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(units.join("ecs.service.d/10-fleet.conf"), AGENT_GATE)?;
    for (name, text) in [
        ("fleet-agent.service", AGENT_UNIT),
        ("fleet-drain.service", DRAIN_UNIT),
    ] {
        fs::write(units.join(name), text)?;
        symlink(
            format!("/etc/systemd/system/{name}"),
            units.join("multi-user.target.wants").join(name),
        )?;
    }
    fs::write(catalog.join("fleet.catalog"), CATALOG)?;
    let recipe = format!(
        "FROM {}\nCOPY --chown=0:0 root/ /\nRUN journalctl --update-catalog\n",
        node_tag()
    );
    fs::write(context.join("Dockerfile"), recipe)?;
    Ok(())
}

fn build(sandbox: &str, context: &Path, image_id: &str) -> anyhow::Result<()> {
    let tag = baked_tag(image_id);
    let output = Command::new("docker")
        .args(["build", "--quiet", "--label"])
        .arg(format!("{LABEL}={sandbox}"))
        .args(["--tag", &tag])
        .arg(context)
        // BuildKit is a separate package; the classic builder is always there.
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .context("run docker build")?;
    if !output.status.success() {
        bail!(
            "docker build of {tag}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_and_the_program_agree_on_the_tag() {
        let output = Command::new(BUILD_SCRIPT).arg("--tag").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), node_tag());
    }
}
