//! A sandbox and a fleet in it, driven as a user drives them: through the programs.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "runs programs, waits for what they bring about, and tells why that did not happen"
)]

pub mod evidence;
mod gateway;
mod journal;
#[cfg(test)]
mod least_privilege;
pub mod page;
pub mod release;
pub mod scenes;
pub mod stage;

pub use journal::{Follower, Record, Story};

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The workspace's target directory.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// One of the workspace's programs, as `make build` and `make agent` leave them.
pub fn program(name: &str) -> PathBuf {
    let profile = if name == "fleet-agent" {
        "dist"
    } else {
        "debug"
    };
    target().join(profile).join(name)
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 if killed by a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// What the program left when it ended.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics, with all the program said, unless it exited with `code`.
    #[must_use]
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.out, self.err
        );
        self
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("not JSON: {}\n{}", self.out, self.err))
    }
}

/// Runs a command to its end, with no input.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Ran> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    Ok(Ran::of(&output))
}

/// Between two looks at first; then ever longer, for a look costs the nodes the processor that they
/// need to get on.
const LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Looks until `found` gives something, at most `seconds`.
///
/// # Errors
/// When it never does; the error names what was awaited.
pub fn eventually<T>(
    awaited: &str,
    seconds: u64,
    mut found: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut pause = LOOK;
    loop {
        if let Some(value) = found()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {seconds} s in vain for {awaited}");
        }
        std::thread::sleep(pause);
        pause = pause.mul_f32(1.3).min(LONGEST_LOOK);
    }
}

/// A sandbox that lives as long as this value.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    env: BTreeMap<String, String>,
}

impl Sandbox {
    /// Brings up a sandbox of this name, after removing what an earlier run may have left.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(name: &str) -> Result<Self> {
        let files = target().join("dist");
        Self::with(name, &["--files", &files.to_string_lossy()])
    }

    /// The same with machines on paper, which are ready at once and run nothing.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn on_paper(name: &str) -> Result<Self> {
        Self::with(name, &["--machines", "paper"])
    }

    fn with(name: &str, options: &[&str]) -> Result<Self> {
        let mut sandbox = Self {
            name: name.to_owned(),
            env: BTreeMap::new(),
        };
        let _ = sandbox.cli(&["down"])?;
        let up = sandbox.cli(&[&["up", "--port", "0"], options].concat())?;
        if up.code != 0 {
            bail!("fleet-sandbox up: {}{}", up.out, up.err);
        }
        sandbox.env = sandbox
            .cli(&["env"])?
            .out
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect();
        Ok(sandbox)
    }

    /// `fleet-sandbox COMMAND --name NAME ARGS...`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<Ran> {
        let (command, rest) = args.split_first().context("a command")?;
        run(Command::new(program("fleet-sandbox"))
            .arg(command)
            .args(["--name", &self.name])
            .args(rest))
    }

    /// A program with this sandbox for its AWS.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        self.in_aws(&mut command);
        command
    }

    /// Somebody else's program with this sandbox for its AWS.
    pub fn in_aws<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.envs(&self.env).env_remove("AWS_PROFILE")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A call of the AWS API that no command of ours makes, through boto3: its operation in
    /// snake_case, its parameters, its answer.
    ///
    /// # Errors
    /// When it is refused.
    pub fn aws(&self, service: &str, operation: &str, parameters: &Value) -> Result<Value> {
        self.aws_as(
            self.var("AWS_ACCESS_KEY_ID"),
            service,
            operation,
            parameters,
        )
    }

    /// [`Sandbox::aws`] with somebody else's access key.
    ///
    /// # Errors
    /// When it is refused.
    pub fn aws_as(
        &self,
        access_key: &str,
        service: &str,
        operation: &str,
        parameters: &Value,
    ) -> Result<Value> {
        const CALL: &str = "import sys, json, boto3; \
            service, operation, parameters = sys.argv[1:]; \
            call = getattr(boto3.client(service), operation); \
            print(json.dumps(call(**json.loads(parameters)), default=str))";
        let called = run(Command::new(target().join("venv/bin/python"))
            .args(["-c", CALL, service, operation, &parameters.to_string()])
            .envs(&self.env)
            .env("AWS_ACCESS_KEY_ID", access_key)
            .env_remove("AWS_PROFILE"))?;
        if called.code != 0 {
            bail!("{service} {operation} {parameters}: {}", called.err);
        }
        called.json()
    }

    /// A variable of `fleet-sandbox env`.
    pub fn var(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// Runs a shell command in a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn on(&self, instance: &str, script: &str) -> Result<Ran> {
        self.cli(&["exec", instance, "--", "sh", "-c", script])
    }

    /// An instance of any group, as the sandbox sees it; null once it is gone.
    ///
    /// # Errors
    /// When the sandbox is not up.
    pub fn instance(&self, id: &str) -> Result<Value> {
        let status = self.status()?;
        let groups = status["groups"].as_array().into_iter().flatten();
        let mut instances =
            groups.flat_map(|group| group["instances"].as_array().into_iter().flatten());
        let found = instances.find(|instance| instance["instance_id"] == *id);
        Ok(found.cloned().unwrap_or_default())
    }

    /// The sandbox's own view.
    ///
    /// # Errors
    /// When it is not up.
    pub fn status(&self) -> Result<Value> {
        self.cli(&["status"])?.exits(0).json()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(format!("/run/fleet-sandbox/{}/log", self.name));
            let log = log.unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                println!("sandbox: {line}");
            }
        }
        if let Err(error) = self.cli(&["down"]) {
            println!("fleet-sandbox down: {error:#}");
        }
    }
}

/// A `fleet.toml` in a directory of its own, and the environment `dev` of it.
#[derive(Debug)]
pub struct Fleet<'s> {
    sandbox: &'s Sandbox,
    directory: tempfile::TempDir,
}

impl<'s> Fleet<'s> {
    /// Writes `fleet.toml` with `init` and adds `extra` to it.
    ///
    /// # Errors
    /// When `init` fails.
    pub fn init(sandbox: &'s Sandbox, name: &str, extra: &str) -> Result<Self> {
        let fleet = Self {
            sandbox,
            directory: tempfile::tempdir()?,
        };
        let mut init = sandbox.command("fleet-bootstrap");
        init.current_dir(fleet.directory.path())
            .args(["init", "--name", name])
            .args(["--region", sandbox.var("AWS_REGION")])
            .args(["--vpc", sandbox.var("FLEET_SANDBOX_VPC")])
            .args(["--environment", "dev"]);
        for subnet in sandbox.var("FLEET_SANDBOX_SUBNETS").split_whitespace() {
            init.args(["--subnet", subnet]);
        }
        let _ = run(&mut init)?.exits(0);
        fleet.append(extra)?;
        Ok(fleet)
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("fleet.toml")
    }

    /// Adds text to the end of the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, text: &str) -> Result<()> {
        let before = fs::read_to_string(self.file())?;
        Ok(fs::write(self.file(), format!("{before}\n{text}\n"))?)
    }

    /// Replaces text in the file, which must be there.
    ///
    /// # Errors
    /// When the text is not in the file, or the file cannot be written.
    pub fn replace(&self, from: &str, to: &str) -> Result<()> {
        let before = fs::read_to_string(self.file())?;
        if !before.contains(from) {
            bail!("`{from}` is not in {}", self.file().display());
        }
        Ok(fs::write(self.file(), before.replace(from, to))?)
    }

    /// `fleet-bootstrap ARGS...` in the file's directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn bootstrap(&self, args: &[&str]) -> Result<Ran> {
        run(&mut self.command(args))
    }

    /// `fleet-bootstrap ARGS...` in the file's directory, yet to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command("fleet-bootstrap");
        command.current_dir(self.directory.path()).args(args);
        command
    }

    /// Starts `fleet-bootstrap`; its output is kept.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.sandbox.command("fleet-bootstrap");
        command
            .current_dir(self.directory.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Runs `fleet-bootstrap` and kills it as soon as it prints `text`.
    ///
    /// # Errors
    /// When it cannot be started or read.
    pub fn bootstrap_killed_after(&self, args: &[&str], text: &str) -> Result<Ran> {
        let mut child = self
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("its output")?);
        let mut out = String::new();
        for line in stdout.lines() {
            let line = line?;
            let seen = line.contains(text);
            out.push_str(&line);
            out.push('\n');
            if seen {
                child.kill()?;
                break;
            }
        }
        Ok(Ran {
            code: child.wait()?.code().unwrap_or(-1),
            out,
            err: String::new(),
        })
    }

    /// `status dev --json`.
    ///
    /// # Errors
    /// When there is nothing to tell of.
    pub fn status(&self) -> Result<Value> {
        self.bootstrap(&["status", "dev", "--json"])?
            .exits(0)
            .json()
    }
}

/// What an `[agent]` table says for nodes on paper, which fetch nothing.
pub const PAPER_SOURCE: &str = "source = { url = \"https://example.com/fleet-agent\", \
    sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\" }";

/// Where a sandbox's nodes fetch the agent, and its checksum, as `[agent]` lines.
///
/// # Errors
/// When the agent has not been built.
pub fn agent_source(sandbox: &Sandbox) -> Result<String> {
    let sum = run(Command::new("sha256sum").arg(program("fleet-agent")))?.exits(0);
    let sum = sum.out.split_whitespace().next().context("a checksum")?;
    Ok(format!(
        "source = {{ url = \"{}/_sandbox/files/fleet-agent\", sha256 = \"{sum}\" }}",
        sandbox.var("FLEET_SANDBOX_NODE_URL"),
    ))
}
