//! Every file the agent touches.

use std::path::{Path, PathBuf};

use fleet_agent_config::names;

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) ecs_defaults: PathBuf,
    pub(crate) ecs_config: PathBuf,
    /// Which variables in the two are ours.
    pub(crate) ours: PathBuf,
    pub(crate) state: PathBuf,
    /// What sidecars are given to read and nobody else, on a tmpfs.
    pub(crate) secrets: PathBuf,
    /// Settings that were taken since agent.toml was written.
    pub(crate) revision: PathBuf,
    pub(crate) released: PathBuf,
    /// There once the console has been told in this boot that the settings are refused.
    pub(crate) refused: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) docker: PathBuf,
    pub(crate) console: PathBuf,
    /// Holds an id that the kernel draws at each boot.
    pub(crate) boot_id: PathBuf,
    /// What cloud-init made of the last boot.
    pub(crate) cloud_init: PathBuf,
    pub(crate) user_data: PathBuf,
    /// What is mounted, as PID 1 sees it.
    pub(crate) mounts: PathBuf,
    /// What the kernel complains of.
    pub(crate) kernel_log: PathBuf,
    /// Where the ECS agent keeps its registration: the database, and the JSON of agents before 1.44.
    pub(crate) checkpoint: [PathBuf; 2],
}

impl Paths {
    /// All of them below `root`, which is `/` on a node.
    pub(crate) fn under(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let state = at(names::STATE_DIRECTORY);
        Self {
            ecs_defaults: at("/var/lib/ecs/ecs.config"),
            ecs_config: at("/etc/ecs/ecs.config"),
            ours: state.join("ecs-config.json"),
            secrets: at(names::SECRETS),
            revision: state.join("revision.json"),
            state: state.join("state.json"),
            released: at(names::RELEASED),
            refused: at(names::RELEASED).with_file_name("refused"),
            socket: at(names::SOCKET),
            docker: at("/var/run/docker.sock"),
            console: at("/dev/console"),
            boot_id: at("/proc/sys/kernel/random/boot_id"),
            cloud_init: at("/var/lib/cloud/data/result.json"),
            user_data: at("/var/lib/cloud/instance/user-data.txt"),
            mounts: at("/proc/1/mountinfo"),
            kernel_log: at("/dev/kmsg"),
            root: root.to_owned(),
            checkpoint: [
                at("/var/lib/ecs/data/agent.db"),
                at("/var/lib/ecs/data/ecs_agent_data.json"),
            ],
        }
    }

    /// A place on the node.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// This very program, also after its file was replaced by a newer one.
    pub(crate) fn program(&self) -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}
