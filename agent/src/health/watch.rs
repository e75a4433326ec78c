//! Looks after the node beside the lifecycle: Docker, disks, the kernel's log and the block of the
//! metadata service. What it finds goes to the lifecycle as one report, whenever that changes.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use fleet_agent_config::{Settings, ecs, names};
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use super::{
    check::{Check, Fault, Tally},
    disk::{Usage, is_read_only, judge, percent, unused},
    events::Recent,
    kernel::complaint,
};
use crate::{
    clients::{
        docker::{Dockerd, Seen},
        firewall::Iptables,
        probe::Reach,
    },
    clock::Clock,
    ecs_config::apply::hazards,
    journal::{event::Entry, sink},
    lifecycle::event::Event,
    paths::Paths,
};

/// dockerd that hangs is known within 20 s: three of four, each with two seconds to answer.
const PING: Duration = Duration::from_secs(5);
const RUN: Duration = Duration::from_secs(300);
/// After a probe that failed, and until the first has gone well.
const RUN_AGAIN: Duration = Duration::from_secs(20);
const FIRST_RUN: Duration = Duration::from_secs(1);
const DISKS: Duration = Duration::from_secs(30);
/// Nothing was found that could go: what may go next has to be used first.
const NOTHING_LEFT: Duration = Duration::from_secs(600);
const RULES: Duration = Duration::from_secs(60);
const SETTINGS: Duration = Duration::from_secs(10);
const KERNEL: Duration = Duration::from_secs(10);
/// A complaint of the kernel counts for so long.
const COMPLAINT: Duration = Duration::from_secs(600);
/// Docker's events are listened to again.
const EVENTS_AGAIN: Duration = Duration::from_secs(2);
/// For a probe's own events to arrive.
const EVENTS_LATE: Duration = Duration::from_secs(5);
/// What the ECS agent goes by when it removes images holds here too.
const IMAGE_AGE: &str = "ECS_IMAGE_MINIMUM_CLEANUP_AGE";
const IMAGE_AGE_DEFAULT: Duration = Duration::from_secs(3_600);
/// Docker's own default.
const DATA_ROOT: &str = "/var/lib/docker";
/// What is read of the kernel's log at a time, bytes: one record is at most 8 KiB.
const RECORD: usize = 8_192;

/// How the node is, beside what the lifecycle itself asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The gravest first.
    pub(crate) faults: Vec<Fault>,
    /// What in the ECS agent's settings would surprise whoever wrote it.
    pub(crate) hazards: Vec<String>,
    /// Containers are kept from the metadata service as the settings ask, and the settings are the
    /// newest: ECS may be released.
    pub(crate) guarded: bool,
    /// Docker has been seen to run a container, and what it must not reach it did not: tasks may come.
    pub(crate) proven: bool,
}

#[cfg(any(test, feature = "simulation"))]
impl Report {
    /// Nothing is wrong, and that is proven.
    pub(crate) fn well() -> Self {
        Self {
            faults: Vec::new(),
            hazards: Vec::new(),
            guarded: true,
            proven: true,
        }
    }
}

/// Everything it needs.
#[derive(Debug)]
pub(crate) struct Watch {
    docker: Dockerd,
    firewall: Iptables,
    settings: Settings,
    paths: Paths,
    clock: Clock,
    events: mpsc::Sender<Event>,
    tally: RefCell<Tally>,
    recent: RefCell<Recent>,
    told: RefCell<Report>,
    /// Something has happened that may have taken the rules away.
    rules_due: Notify,
    /// Told once the settings are known to be the newest.
    newest: Rc<Notify>,
    is_newest: Cell<bool>,
    /// A probe's own event has arrived.
    probe_seen: Cell<bool>,
    hazards: RefCell<Vec<String>>,
    /// Where Docker keeps everything, once it has told.
    data_root: OnceCell<String>,
}

impl Watch {
    pub(crate) fn new(
        settings: Settings,
        paths: Paths,
        clock: Clock,
        events: mpsc::Sender<Event>,
        newest: Rc<Notify>,
    ) -> Self {
        Self {
            docker: Dockerd::new(paths.docker.clone()),
            firewall: Iptables::new(&paths.root),
            settings,
            paths,
            clock,
            events,
            tally: RefCell::default(),
            recent: RefCell::default(),
            told: RefCell::default(),
            rules_due: Notify::new(),
            newest,
            is_newest: Cell::new(false),
            probe_seen: Cell::new(false),
            hazards: RefCell::default(),
            data_root: OnceCell::new(),
        }
    }

    /// For as long as the agent lives.
    pub(crate) async fn run(&self) {
        tokio::join!(
            self.pings(),
            self.runs(),
            self.disks(),
            self.rules(),
            self.kernel(),
            self.listens(),
            self.settings_of_ecs(),
            self.awaits_settings(),
        );
    }

    async fn observe(&self, check: Check, well: Result<(), String>) {
        let now = self.clock.now();
        self.tally.borrow_mut().observe(check, well, now);
        self.tell().await;
    }

    async fn tell(&self) {
        let report = {
            let tally = self.tally.borrow();
            let blocks = self.settings.node.block_metadata_service;
            let is_blocked = !blocks || tally.is_proven(Check::MetadataBlock);
            Report {
                faults: tally.faults(),
                hazards: self.hazards.borrow().clone(),
                guarded: tally.is_proven(Check::MetadataRules) && self.is_newest.get(),
                proven: tally.is_proven(Check::DockerRun) && is_blocked,
            }
        };
        if *self.told.borrow() != report {
            self.told.replace(report.clone());
            // The receiver is gone only when the process is about to end.
            let _ = self.events.send(Event::Node(report)).await;
        }
    }

    async fn pings(&self) {
        loop {
            let answer = self.docker.ping().await;
            self.observe(Check::DockerPing, text(answer)).await;
            self.clock.sleep(PING).await;
        }
    }

    async fn runs(&self) {
        let program = self.paths.program();
        let mut again = FIRST_RUN;
        loop {
            self.probe_seen.set(false);
            let ran = self.docker.run_probe(&program).await;
            let failed = ran.is_err();
            if let Ok(reach) = &ran {
                self.learn_reach(*reach).await;
                self.await_events().await;
            }
            self.observe(Check::DockerRun, text(ran.map(drop))).await;
            // Docker may only just be starting: soon at first, then less and less often.
            let wait = match (failed, self.is_settled()) {
                (true, _) => again,
                (false, true) => RUN,
                (false, false) => RUN_AGAIN,
            };
            again = if failed {
                (again * 2).min(RUN_AGAIN)
            } else {
                FIRST_RUN
            };
            self.clock.sleep(wait).await;
        }
    }

    /// All that a probe shows is well, and counts as well.
    fn is_settled(&self) -> bool {
        let shown = [Check::DockerRun, Check::DockerEvents, Check::MetadataBlock];
        let tally = self.tally.borrow();
        let faults = tally.faults();
        let stands = |check| faults.iter().any(|fault| fault.check == check);
        shown
            .iter()
            .all(|check| tally.was_well(*check) && !stands(*check))
    }

    async fn learn_reach(&self, reach: Reach) {
        if !self.settings.node.block_metadata_service {
            return;
        }
        let well = match reach {
            Reach::Blocked => Ok(()),
            Reach::Open => {
                self.rules_due.notify_one();
                Err("a container can reach the instance metadata service".to_owned())
            }
        };
        self.observe(Check::MetadataBlock, well).await;
    }

    /// Docker has just started and removed a container: it must have told.
    async fn await_events(&self) {
        let seen = timeout(EVENTS_LATE, async {
            while !self.probe_seen.get() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        let well = seen
            .await
            .map_err(|_| "docker: events: none of a container that was just run".to_owned());
        self.observe(Check::DockerEvents, well).await;
    }

    async fn disks(&self) {
        let mut looked = Told::new("look at the disks");
        let mut made = Told::new("make room on the disk");
        let mut next = self.clock.now();
        loop {
            let room = self.usages().await;
            let room = looked.tell(room.map(|usages| judge(&usages, &self.settings.disk)));
            let is_low = room.as_ref().is_some_and(|room| room.low.is_err());
            if let Some(room) = room {
                self.observe(Check::DiskFull, room.full).await;
                self.observe(Check::DiskLow, room.low).await;
                self.observe(Check::ReadOnly, room.read_only).await;
            }
            // After the disks were judged: Docker may take its time, or be what is ill.
            let now = self.clock.now();
            if is_low && next <= now {
                let removed = made.tell(self.make_room().await);
                let is_over = removed == Some(0);
                next = now
                    + if is_over {
                        NOTHING_LEFT
                    } else {
                        Duration::ZERO
                    };
            }
            self.clock.sleep(DISKS).await;
        }
    }

    async fn usages(&self) -> Result<Vec<Usage>> {
        if self.data_root.get().is_none()
            // Docker may be what is ill: the rest is looked at all the same.
            && let Ok(Ok(Some(root))) = timeout(PING, self.docker.data_root()).await
        {
            // Nobody else sets it.
            let _ = self.data_root.set(root);
        }
        let data_root = self.data_root.get().map_or(DATA_ROOT, String::as_str);
        let places = BTreeSet::from(["/", "/var/log", data_root])
            .into_iter()
            .map(str::to_owned);
        // Of PID 1: this service itself sees most of the node read-only (ProtectSystem=).
        let mounts = std::fs::read_to_string(&self.paths.mounts);
        let mounts = mounts.with_context(|| format!("read {}", self.paths.mounts.display()))?;
        let usages = places.filter_map(|place| {
            let path = self.paths.at(&place);
            path.exists().then(|| usage(&path, place, &mounts))
        });
        usages.collect()
    }

    /// What nobody uses goes, the oldest image first, until there is room: how many images did.
    async fn make_room(&self) -> Result<u32> {
        let (images, used) = self.docker.images().await?;
        let sidecars = self
            .settings
            .sidecars
            .iter()
            .map(|sidecar| sidecar.image.clone());
        let kept = sidecars.chain([names::PROBE_IMAGE.to_owned()]).collect();
        let mut removed = 0;
        let age = self
            .settings
            .ecs
            .get(IMAGE_AGE)
            .and_then(|age| ecs::duration(age));
        let oldest = self.clock.wall() - age.unwrap_or(IMAGE_AGE_DEFAULT);
        for image in unused(&images, &used, &kept, oldest) {
            removed += u32::from(self.docker.remove_image(image).await?);
            if judge(&self.usages().await?, &self.settings.disk)
                .low
                .is_ok()
            {
                break;
            }
        }
        if removed > 0 {
            sink::write(&Entry::RoomMade { images: removed });
        }
        if judge(&self.usages().await?, &self.settings.disk)
            .low
            .is_err()
        {
            self.docker.remove_build_cache().await?;
            if self.settings.disk.prune_volumes {
                self.docker.remove_volumes().await?;
            }
        }
        Ok(removed)
    }

    async fn rules(&self) {
        let blocked = self.settings.node.block_metadata_service;
        let mut known = None;
        loop {
            let held = self.firewall.guard_metadata(blocked).await;
            if let Ok(guarded) = &held
                && (known != Some(guarded.host_tasks) || guarded.changed)
                && blocked
            {
                known = Some(guarded.host_tasks);
                sink::write(&Entry::MetadataBlocked {
                    host_tasks: guarded.host_tasks,
                });
            }
            let first = !self.tally.borrow().is_proven(Check::MetadataRules) && held.is_err();
            self.observe(Check::MetadataRules, text(held.map(drop)))
                .await;
            let wait = if first { FIRST_RUN } else { RULES };
            // Both are wanted: what is told of at once, and what nobody tells of.
            tokio::select! {
                () = self.rules_due.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    async fn awaits_settings(&self) {
        self.newest.notified().await;
        self.is_newest.set(true);
        self.tell().await;
    }

    /// Operators edit files at any time.
    async fn settings_of_ecs(&self) {
        loop {
            // Whatever was only just begun is written first.
            self.clock.sleep(SETTINGS).await;
            match hazards(&self.settings, &self.paths) {
                Ok(found) => {
                    let known = self
                        .hazards
                        .replace(found.iter().map(|(_, text)| text.clone()).collect());
                    for (code, text) in found.into_iter().filter(|(_, text)| !known.contains(text))
                    {
                        sink::write(&Entry::Hazard { code, text });
                    }
                    self.tell().await;
                }
                Err(error) => log::debug!(target: "fleet-agent", "{error:#}"),
            }
        }
    }

    /// Docker's events only make prompt what polls find anyway, so a broken stream is no fault by
    /// itself; and whatever breaks it may have rewritten the packet filter.
    async fn listens(&self) {
        loop {
            let mut tell = |seen: Seen| {
                if seen.is_probe {
                    self.probe_seen.set(true);
                } else if let Some(whose) = seen.whose {
                    let now = self.clock.now();
                    let (id, name) = (&seen.id, &seen.name);
                    self.recent.borrow_mut().add(seen.happening, id, name, now);
                    // A full queue means that something is being handled already; the polls find the rest.
                    let _ = self.events.try_send(Event::Container(whose));
                }
            };
            let error = self.docker.watch(&mut tell).await;
            log::debug!(target: "fleet-agent", "{error:#}");
            self.clock.sleep(EVENTS_AGAIN).await;
            self.rules_due.notify_one();
        }
    }

    /// The kernel's log, and what is counted over minutes.
    async fn kernel(&self) {
        // What was said before is what another boot, or another agent, has dealt with.
        let mut log = Log::open(&self.paths.kernel_log, SeekFrom::End(0)).ok();
        let mut complaint = None;
        loop {
            let now = self.clock.now();
            let starts = self.recent.borrow_mut().starts(now);
            self.observe(Check::Starts, starts).await;
            let restarts = self.recent.borrow_mut().restarts(now);
            self.observe(Check::Restarts, restarts).await;
            if log.is_none() {
                log = Log::open(&self.paths.kernel_log, SeekFrom::Start(0)).ok();
            }
            if let Some(found) = log.as_mut().and_then(Log::complaint) {
                complaint = Some((now, found));
            }
            complaint = complaint.filter(|(at, _)| now.since(*at) < COMPLAINT);
            let well = complaint.map_or(Ok(()), |(_, text)| Err(text.to_owned()));
            self.observe(Check::Kernel, well).await;
            self.clock.sleep(KERNEL).await;
        }
    }
}

/// The kernel's log.
#[derive(Debug)]
struct Log {
    file: File,
    buffer: Vec<u8>,
}

impl Log {
    fn open(path: &Path, from: SeekFrom) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)?;
        file.seek(from)?;
        Ok(Self {
            file,
            buffer: vec![0; RECORD],
        })
    }

    /// The last complaint among what has come, if there is one.
    fn complaint(&mut self) -> Option<&'static str> {
        let mut found = None;
        loop {
            match self.file.read(&mut self.buffer) {
                Ok(0) => return found,
                Ok(read) => {
                    let text = String::from_utf8_lossy(&self.buffer[..read]);
                    found = text.lines().filter_map(complaint).next_back().or(found);
                }
                // EPIPE: records were lost, the next read goes on after them.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                // Nothing more for now, or nothing to be done about it.
                Err(_) => return found,
            }
        }
    }
}

fn usage(path: &Path, place: String, mounts: &str) -> Result<Usage> {
    let name = || format!("look at the file system of {}", path.display());
    let found = nix::sys::statvfs::statvfs(path).with_context(name)?;
    let share = |whole: u64, free: u64, available: u64| percent(whole - free.min(whole), available);
    Ok(Usage {
        read_only: is_read_only(mounts, &place),
        path: place,
        bytes_percent: share(
            found.blocks(),
            found.blocks_free(),
            found.blocks_available(),
        ),
        inodes_percent: share(found.files(), found.files_free(), found.files_available()),
    })
}

fn text(result: Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("{error:#}"))
}

/// A call whose failures are told when they are news.
#[derive(Debug)]
struct Told {
    call: &'static str,
    error: Option<String>,
}

impl Told {
    const fn new(call: &'static str) -> Self {
        Self { call, error: None }
    }

    fn tell<T>(&mut self, result: Result<T>) -> Option<T> {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        if error != self.error {
            let call = self.call;
            sink::write(&match error.clone() {
                Some(error) => Entry::CallFailed { call, error },
                None => Entry::Recovered { call },
            });
            self.error = error;
        }
        value
    }
}
