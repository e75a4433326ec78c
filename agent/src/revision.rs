//! Takes newer settings from the group's SSM parameter, once this instance's tag names them. They are
//! kept on disk, and the daemon starts over with them: a reboot needs no API, and there is one way in
//! which settings take effect.

use std::{cell::RefCell, fs, io, rc::Rc, time::Duration};

use anyhow::{Context as _, Result, bail};
use fleet_agent_config::{Applied, Config, Live, Problems, Settings, names::tag};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    atomic,
    clients::{Remotes, imds::Imds as _, ssm::Ssm as _},
    journal::{event::Entry, sink},
    lifecycle::driver::Context,
    paths::Paths,
};

/// Between two looks at the tag, which the metadata service answers on the node itself.
const LOOK: Duration = Duration::from_secs(5);
/// A node that cannot learn of a newer revision joins with what it has.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The last good copy, and what was not good.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Of the agent.toml that it was taken over: an image may have been made of another node.
    over: String,
    taken: Option<Live>,
    refused: Option<u64>,
}

/// agent.toml, and what was taken since.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// agent.toml alone.
    pub(crate) base: Config,
    pub(crate) settings: Settings,
    pub(crate) applied: Applied,
}

impl Source {
    /// `settings` are those of `base`, `hash` that of its text.
    pub(crate) fn new(base: Config, settings: Settings, hash: String, paths: &Paths) -> Self {
        let kept = kept(paths).unwrap_or_else(|error| {
            failed("read the revision that was taken last", &error);
            Kept::default()
        });
        let kept = Some(kept).filter(|kept| kept.over == hash);
        let kept = kept.unwrap_or_default();
        let taken = kept.taken.filter(|live| base.refusals(live).is_empty());
        let taken = taken.and_then(|live| {
            let settings = base.with(&live).validate(&mut Vec::new())?;
            Some((live.revision, settings))
        });
        let (revision, settings) = taken.unwrap_or((0, settings));
        Self {
            base,
            settings,
            applied: Applied {
                hash,
                revision,
                refused: kept.refused,
                settled: false,
            },
        }
    }
}

/// Whether this agent could go on with the revision that another has kept.
///
/// # Errors
/// Naming the file, and why not.
pub(crate) fn check(base: &Config, hash: &str, paths: &Paths) -> Result<()> {
    let kept = kept(paths)?;
    let Some(live) = kept.taken.filter(|_| kept.over == hash) else {
        return Ok(());
    };
    let file = paths.revision.display().to_string();
    match base.refusals(&live) {
        problems if problems.is_empty() => Ok(()),
        problems => Err(Problems { file, problems }.into()),
    }
}

fn kept(paths: &Paths) -> Result<Kept> {
    match fs::read_to_string(&paths.revision) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        text => text
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(serde_json::from_str(&text)?))
            .with_context(|| format!("read {}", paths.revision.display())),
    }
}

fn failed(call: &'static str, error: &anyhow::Error) {
    sink::write(&Entry::CallFailed {
        call,
        error: format!("{error:#}"),
    });
}

/// What follows from a parameter's value.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Take(Live),
    Refuse(u64, Problems),
    /// The parameter holds another than the tag names: the value is still to come, or its first node
    /// has not proven it yet. Another look may tell more.
    Later,
}

/// `wanted` is what the tag names.
fn judge(base: &Config, wanted: u64, text: &str) -> Verdict {
    let refuse = |revision, problems| {
        let file = base.parameter.name.clone();
        Verdict::Refuse(revision, Problems { file, problems })
    };
    match Live::read(text) {
        Err(problem) => refuse(wanted, vec![problem]),
        Ok(live) if live.revision != wanted => Verdict::Later,
        Ok(live) => match base.refusals(&live) {
            problems if problems.is_empty() => Verdict::Take(live),
            problems => refuse(live.revision, problems),
        },
    }
}

/// Looks for newer revisions.
#[derive(Debug)]
pub(crate) struct Revisions {
    pub(crate) context: Rc<Context<Remotes>>,
    pub(crate) base: Config,
    pub(crate) paths: Paths,
    /// Told once it is known that there is none, or that it cannot be had.
    pub(crate) settled: Rc<Notify>,
    /// There once there are other settings than the daemon was started with.
    pub(crate) found: Rc<Found>,
}

/// What was found, for whoever starts the daemon over with it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    kept: RefCell<Option<(Kept, Vec<Entry>)>>,
    is_there: Notify,
}

impl Found {
    pub(crate) async fn wait(&self) {
        self.is_there.notified().await;
    }

    /// After a while: the disk may have been full.
    pub(crate) async fn tell_again(&self) {
        tokio::time::sleep(LAST_RETRY).await;
        self.is_there.notify_one();
    }

    /// Keeps it for the next start. A failure leaves everything as it is.
    pub(crate) fn keep(&self, paths: &Paths) -> Result<()> {
        let Some((kept, entries)) = &*self.kept.borrow() else {
            return Ok(());
        };
        let text = serde_json::to_string(kept)?;
        atomic::write(&paths.revision, text.as_bytes())?;
        for entry in entries {
            sink::write(entry);
        }
        Ok(())
    }
}

impl Revisions {
    /// Until one was taken or refused.
    pub(crate) async fn run(self) {
        let clock = &self.context.clock;
        let began = clock.now();
        let mut retry = FIRST_RETRY;
        let mut told = None;
        loop {
            match self.look().await {
                Ok(true) => return self.found.is_there.notify_one(),
                Ok(false) => {
                    self.settled.notify_one();
                    (retry, told) = (FIRST_RETRY, None);
                    clock.sleep(LOOK).await;
                }
                Err(error) => {
                    let text = Some(format!("{error:#}"));
                    if told != text {
                        failed("look for newer settings", &error);
                        told = text;
                    }
                    if clock.now().since(began) >= PATIENCE {
                        self.settled.notify_one();
                    }
                    clock.sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Whether there are other settings now.
    async fn look(&self) -> Result<bool> {
        let Context {
            clients, applied, ..
        } = &*self.context;
        let Some(tag) = clients.imds.tag(tag::REVISION).await? else {
            return Ok(false);
        };
        let wanted: u64 = tag
            .parse()
            .with_context(|| format!("tag {}: `{tag}` is no number", tag::REVISION))?;
        if wanted <= applied.revision.max(applied.refused.unwrap_or(0)) {
            return Ok(false);
        }
        let name = &self.base.parameter.name;
        let text = clients.aws.parameter(name).await?;
        let over = applied.hash.clone();
        let found = match judge(&self.base, wanted, &text) {
            Verdict::Later => bail!("{name} does not hold revision {wanted}, which the tag names"),
            Verdict::Take(live) => {
                let revision = live.revision;
                let kept = Kept {
                    over,
                    taken: Some(live),
                    refused: None,
                };
                (kept, vec![Entry::RevisionTaken { revision }])
            }
            Verdict::Refuse(revision, problems) => {
                let told = problems.to_string();
                let entries = told.lines().map(|problem| Entry::RevisionRefused {
                    revision,
                    problem: problem.to_owned(),
                });
                let kept = Kept {
                    over,
                    refused: Some(revision),
                    // What cannot be read is not in force either.
                    taken: kept(&self.paths).unwrap_or_default().taken,
                };
                (kept, entries.collect())
            }
        };
        self.found.kept.replace(Some(found));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_agent_config::Document;

    fn base() -> (Config, Settings) {
        let source = include_str!("../config/golden/agent-v1.toml");
        let document = Document::parse("agent.toml", source).expect("syntax");
        let settings = Settings::read("agent.toml", source).expect("valid");
        (document.read::<Config>().0, settings)
    }

    #[test]
    fn a_revision_is_taken_whole_or_refused_whole() {
        let (base, _) = base();
        let live = Live::of(&base, 3);
        let text = live.text().expect("JSON");
        assert_eq!(judge(&base, 3, &text), Verdict::Take(live));
        assert_eq!(judge(&base, 2, &text), Verdict::Later, "not proven yet");
        assert_eq!(judge(&base, 4, &text), Verdict::Later);
        let foreign = text.replace(&base.owner, "f-ffffffffffffffff");
        for (text, number) in [(foreign.as_str(), 3), ("", 4), ("{}", 4), ("\u{0}", 4)] {
            let verdict = judge(&base, 4.min(number), text);
            assert!(
                matches!(verdict, Verdict::Refuse(refused, _) if refused == number),
                "{text}: {verdict:?}"
            );
        }
    }

    #[test]
    fn the_last_good_copy_stands_over_agent_toml_unless_it_does_not_fit_it() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        let (base, settings) = base();
        let read = || Source::new(base.clone(), settings.clone(), "a1".into(), &paths);
        assert_eq!(read().applied.to_string(), "a1 starting");

        let mut live = Live::of(&base, 3);
        live.drain.deadline_seconds = Some(60);
        let write = |live: &Live| {
            let kept = Kept {
                over: "a1".into(),
                taken: Some(live.clone()),
                refused: Some(4),
            };
            fs::create_dir_all(paths.revision.parent().expect("a parent")).expect("mkdir");
            fs::write(&paths.revision, serde_json::to_string(&kept).expect("JSON")).expect("write");
        };
        write(&live);
        let source = read();
        assert_eq!(source.applied.to_string(), "a1.3 refused 4");
        assert_eq!(source.settings.drain.deadline_seconds, 60);

        let other = Source::new(base.clone(), settings.clone(), "b2".into(), &paths);
        assert_eq!(
            other.applied.to_string(),
            "b2 starting",
            "another agent.toml's"
        );

        live.owner = "somebody".into();
        write(&live);
        assert_eq!(read().applied.revision, 0);
        fs::write(&paths.revision, "{").expect("write");
        assert_eq!(read().settings, settings);
    }
}
