//! A plan in a file: reviewed today, applied tomorrow, and only if it would still be the same.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{plan::Plan, session::Session};

/// The format of these files.
const VERSION: u32 = 1;

/// What `plan --out` writes and `up --plan` reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanFile {
    version: u32,
    fleet: String,
    environment: String,
    owner: String,
    account: String,
    region: String,
    /// Whether it was made with `--ami latest`.
    pub(crate) newest_images: bool,
    /// All of it, for people; its steps are what has to be the same.
    plan: Value,
}

impl PlanFile {
    fn of(session: &Session, plan: &Plan) -> Result<Self> {
        let identity = &session.desired.identity;
        Ok(Self {
            version: VERSION,
            fleet: identity.fleet.clone(),
            environment: identity.environment.clone(),
            owner: identity.owner.clone(),
            account: session.account().to_owned(),
            region: identity.region.clone(),
            newest_images: session.takes_newest_images(),
            plan: serde_json::to_value(plan)?,
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn write(path: &Path, session: &Session, plan: &Plan) -> Result<()> {
        let text = serde_json::to_string_pretty(&Self::of(session, plan)?)?;
        fs::write(path, text + "\n")
            .with_context(|| format!("failed to write the plan to {}", path.display()))
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// When it is not there, or no plan of this version.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
        let file: Self = serde_json::from_str(&text)
            .with_context(|| format!("{name} is no plan: write one with `plan --out`"))?;
        ensure!(
            file.version == VERSION,
            "{name} is of version {}, this program reads {VERSION}: write it again with `plan --out`",
            file.version
        );
        Ok(file)
    }

    /// Whether `plan`, made now, would do the same in the same place.
    ///
    /// # Errors
    /// What is different.
    pub(crate) fn check(&self, session: &Session, plan: &Plan) -> Result<()> {
        let now = Self::of(session, plan)?;
        for (what, before, now) in [
            ("fleet", &self.fleet, &now.fleet),
            ("environment", &self.environment, &now.environment),
            ("owner id", &self.owner, &now.owner),
            ("account", &self.account, &now.account),
            ("region", &self.region, &now.region),
        ] {
            ensure!(
                before == now,
                "nothing was changed: the plan was made for {what} {before}, and this is {now}"
            );
        }
        if self.plan["steps"] != now.plan["steps"] {
            bail!(
                "nothing was changed: the file, or what AWS holds, is not what it was when the plan was made; make it again with `plan --out`, and look at it"
            );
        }
        Ok(())
    }
}
