//! Whether Docker answers, and whether it can run anything: a container of this program itself, which
//! also tries to reach the instance metadata service, as any task could.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use bollard::{
    body_try_stream,
    errors::Error as DockerError,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};
use fleet_agent_config::names;
use futures_util::{StreamExt as _, stream};

use super::docker::{Dockerd, bounded};

/// The ECS agent gives dockerd as long.
const PING: Duration = Duration::from_secs(2);
/// For all of it; a shorter one caused restart loops elsewhere.
const RUN: Duration = Duration::from_secs(60);
const NAME: &str = "fleet-probe";
/// The label by which the agent knows its probes.
pub(crate) const LABEL: &str = "fleet.probe";
/// Where the program is in its image.
const PROGRAM: &str = "fleet-agent";
/// Bytes read at a time: the program is larger than this one may grow by.
const CHUNK: usize = 64 * 1024;

/// What a probe found of the metadata service, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Blocked = 0,
    Open = 3,
}

impl Dockerd {
    /// `/_ping`.
    ///
    /// # Errors
    /// If it is not answered within two seconds.
    pub(crate) async fn ping(&self) -> Result<()> {
        let pinged = async {
            let docker = self.handle().await?;
            bounded(PING, docker.ping()).await.context("docker: ping")
        };
        match tokio::time::timeout(PING, pinged).await {
            Ok(answer) => answer.map(drop),
            Err(_) => bail!("docker: ping: no answer within {} s", PING.as_secs()),
        }
    }

    /// Creates, runs and removes a container of `program`, whose image is made from it where it is
    /// missing, and never pulled.
    ///
    /// # Errors
    /// If any of that fails or does not end.
    pub(crate) async fn run_probe(&self, program: &Path) -> Result<Reach> {
        match tokio::time::timeout(RUN, self.probe(program)).await {
            Ok(result) => result,
            Err(_) => bail!("docker: run a probe: not over within {} s", RUN.as_secs()),
        }
    }

    async fn probe(&self, program: &Path) -> Result<Reach> {
        let docker = self.handle().await?;
        remove_all(&docker).await?;
        let mut created = create(&docker).await;
        if let Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) = created
        {
            import(&docker, program).await?;
            created = create(&docker).await;
        }
        let id = created.context("docker: create a probe")?;
        let ran = async {
            docker
                .start_container(&id, None)
                .await
                .context("docker: start a probe")?;
            let mut end = std::pin::pin!(docker.wait_container(&id, None));
            let code = match end.next().await {
                Some(Ok(ended)) => ended.status_code,
                Some(Err(DockerError::DockerContainerWaitError { code, .. })) => code,
                Some(Err(error)) => return Err(error).context("docker: wait for a probe"),
                None => bail!("docker: wait for a probe: no answer"),
            };
            [Reach::Blocked, Reach::Open]
                .into_iter()
                .find(|reach| *reach as i64 == code)
                .with_context(|| format!("docker: a probe ended with {code}"))
        };
        let ran = ran.await;
        remove(&docker, &id).await?;
        ran
    }
}

async fn create(docker: &bollard::Docker) -> Result<String, DockerError> {
    let options = CreateContainerOptionsBuilder::new().name(NAME).build();
    let body = ContainerCreateBody {
        image: Some(names::PROBE_IMAGE.to_owned()),
        cmd: Some(vec![format!("/{PROGRAM}"), "probe".to_owned()]),
        user: Some("65534:65534".to_owned()),
        labels: Some(HashMap::from([(LABEL.to_owned(), String::new())])),
        host_config: Some(HostConfig {
            network_mode: Some("bridge".to_owned()),
            memory: Some(32 << 20),
            pids_limit: Some(16),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    Ok(docker.create_container(Some(options), body).await?.id)
}

/// What an agent that was killed in the middle may have left.
async fn remove_all(docker: &bollard::Docker) -> Result<()> {
    let filters = HashMap::from([("label", vec![LABEL])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let listed = docker.list_containers(Some(options)).await;
    for container in listed.context("docker: list probes")? {
        if let Some(id) = container.id {
            remove(docker, &id).await?;
        }
    }
    Ok(())
}

async fn remove(docker: &bollard::Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(()),
        other => other.context("docker: remove a probe"),
    }
}

/// An image of the program alone.
async fn import(docker: &bollard::Docker, program: &Path) -> Result<()> {
    let name = || {
        format!(
            "docker: make {} from {}",
            names::PROBE_IMAGE,
            program.display()
        )
    };
    let (repo, tag) = names::PROBE_IMAGE.split_once(':').with_context(name)?;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repo)
        .tag(tag)
        .build();
    let archive = body_try_stream(archive(program).with_context(name)?);
    let mut progress = std::pin::pin!(docker.create_image(Some(options), Some(archive), None));
    while let Some(step) = progress.next().await {
        step.with_context(name)?;
    }
    Ok(())
}

/// A tar archive of one file, which is never in memory as a whole.
fn archive(
    program: &Path,
) -> Result<impl stream::Stream<Item = io::Result<bytes::Bytes>> + Send + 'static> {
    let mut file = File::open(program)?;
    let size = file.metadata()?.len();
    let mut header = tar::Header::new_ustar();
    header.set_path(PROGRAM)?;
    header.set_size(size);
    header.set_mode(0o755);
    header.set_cksum();
    let block = header.as_bytes().len() as u64;
    let padding = usize::try_from(size.next_multiple_of(block) - size + 2 * block)
        .map_err(|_| anyhow!("too large"))?;
    let begin = bytes::Bytes::copy_from_slice(header.as_bytes());
    let contents = stream::iter(std::iter::from_fn(move || {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(error)),
        }
    }));
    let end = stream::once(async move { Ok(vec![0; padding].into()) });
    Ok(stream::once(async move { Ok(begin) })
        .chain(contents)
        .chain(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_holds_the_program_and_nothing_else() {
        for size in [0_usize, 1, 512, 513, 200_000] {
            let directory = tempfile::tempdir().expect("tempdir");
            let path = directory.path().join("program");
            std::fs::write(&path, vec![7; size]).expect("write");
            let chunks: Vec<_> = archive(&path).expect("opens").collect().await;
            let bytes: Vec<u8> = chunks
                .into_iter()
                .flat_map(|chunk| chunk.expect("reads").to_vec())
                .collect();
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entries = archive.entries().expect("entries");
            let entry = entries.next().expect("one").expect("whole");
            assert_eq!(entry.path().expect("a path"), Path::new(PROGRAM));
            assert_eq!(entry.size(), size as u64);
            assert_eq!(entry.header().mode().expect("a mode"), 0o755);
            assert!(entries.next().is_none(), "{size}");
            assert_eq!(bytes.len() % 512, 0);
        }
    }
}
