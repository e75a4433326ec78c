//! `validate`: everything that is wrong with fleet.toml, in one environment or in all.

use std::collections::BTreeMap;

use fleet_agent_config::{Problem, Problems};
use serde::Serialize;

use crate::{
    cli::ValidateArgs,
    desired,
    exit::Exit,
    output::{Output, green, yellow},
    spec::{FleetFile, LoadError},
};

/// Runs the command.
///
/// # Errors
/// When the file cannot be read or has no such environment. Problems in the file are not an error
/// of this command but its result, and end it with [`Exit::Error`].
pub fn run(args: &ValidateArgs, out: &Output) -> anyhow::Result<Exit> {
    let file = FleetFile::open(&args.common.file)?;
    let name = args.common.file.display().to_string();
    let environments = match &args.environment {
        Some(environment) => vec![environment.clone()],
        None => match file.environments() {
            // Checked as it stands: that there is none is one of its problems.
            Ok(known) if known.is_empty() => vec![String::new()],
            Ok(known) => known,
            Err(problems) => return Ok(answer(out, &name, Findings::of(problems), &[])),
        },
    };
    let mut found = PerEnvironment::default();
    for environment in &environments {
        match check(&file, environment) {
            Ok(warnings) => found.add(
                environment,
                Findings {
                    warnings,
                    ..Findings::default()
                },
            ),
            Err(LoadError::Invalid(problems)) => found.add(environment, Findings::of(problems)),
            Err(error @ (LoadError::Unreadable { .. } | LoadError::UnknownEnvironment { .. })) => {
                return Err(error.into());
            }
        }
    }
    let findings = found.merged(environments.len());
    Ok(answer(out, &name, findings, &environments))
}

/// One environment with all that is made from it; what is left are its warnings.
fn check(file: &FleetFile, environment: &str) -> Result<Vec<Problem>, LoadError> {
    let spec = file.spec(environment)?;
    desired::build(&spec)?;
    Ok(spec.warnings)
}

fn answer(out: &Output, file: &str, findings: Findings, environments: &[String]) -> Exit {
    out.json(&Report::new(file, &findings));
    let list = |problems: Vec<Problem>| Problems {
        file: file.to_owned(),
        problems,
    };
    for warning in findings.warnings {
        out.note(format!("{} {}", yellow("warning:"), list(vec![warning])));
    }
    if findings.problems.is_empty() {
        let names = environments.join(", ");
        out.line(format!("{} {file}: {names}", green("ok")));
        return Exit::Done;
    }
    if !out.is_json() {
        out.note(list(findings.problems));
    }
    Exit::Error
}

#[derive(Debug, Default)]
struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Findings {
    fn of(problems: Problems) -> Self {
        Self {
            problems: problems.problems,
            warnings: Vec::new(),
        }
    }
}

/// Findings by the environments that have them: most are in what all share, and are said once.
#[derive(Debug, Default)]
struct PerEnvironment {
    problems: BTreeMap<Problem, Vec<String>>,
    warnings: BTreeMap<Problem, Vec<String>>,
}

impl PerEnvironment {
    fn add(&mut self, environment: &str, findings: Findings) {
        for (seen, found) in [
            (&mut self.problems, findings.problems),
            (&mut self.warnings, findings.warnings),
        ] {
            for problem in found {
                seen.entry(problem)
                    .or_default()
                    .push(environment.to_owned());
            }
        }
    }

    /// One list; what is not in all of `count` environments names those it is in.
    fn merged(self, count: usize) -> Findings {
        let merge = |found: BTreeMap<Problem, Vec<String>>| {
            let named = |(mut problem, environments): (Problem, Vec<String>)| {
                if environments.len() < count {
                    problem.message += &format!(" (in {})", environments.join(", "));
                }
                problem
            };
            found.into_iter().map(named).collect()
        };
        Findings {
            problems: merge(self.problems),
            warnings: merge(self.warnings),
        }
    }
}

/// `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    problems: Vec<Finding<'a>>,
    warnings: Vec<Finding<'a>>,
}

#[derive(Debug, Serialize)]
struct Finding<'a> {
    file: &'a str,
    /// From 1; 0 for what is missing altogether.
    line: usize,
    key: &'a str,
    message: &'a str,
}

impl<'a> Report<'a> {
    fn new(file: &'a str, findings: &'a Findings) -> Self {
        let list = |problems: &'a [Problem]| {
            let finding = |problem: &'a Problem| Finding {
                file,
                line: problem.line,
                key: &problem.key,
                message: &problem.message,
            };
            problems.iter().map(finding).collect()
        };
        Self {
            problems: list(&findings.problems),
            warnings: list(&findings.warnings),
        }
    }
}
