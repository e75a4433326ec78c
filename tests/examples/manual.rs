//! Writes the manual pages and shell completions of both programs from their own definitions of
//! commands and options: `manual DIRECTORY`. It is a program of its own so that what ships on a node
//! carries none of this.

use std::{env, fs, io, path::Path};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Under the names by which packages install them.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash"),
    (Shell::Zsh, "zsh"),
    (Shell::Fish, "fish"),
];

fn main() -> Result<()> {
    let directory = env::args_os()
        .nth(1)
        .context("usage: manual DIRECTORY, to write the manual pages and completions to")?;
    let directory = Path::new(&directory);
    // A daemon and its administration on one side, a user's command on the other.
    let programs = [
        (fleet_agent::cli::command(), "8"),
        (fleet_bootstrap::cli::command(), "1"),
    ];
    for (program, section) in programs {
        let name = program.get_name().to_owned();
        write(program, section, directory)
            .with_context(|| format!("write the manual of {name} to {}", directory.display()))?;
    }
    Ok(())
}

fn write(program: Command, section: &str, directory: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    for (shell, called) in SHELLS {
        let completions = directory.join("completions").join(called);
        fs::create_dir_all(&completions)?;
        clap_complete::generate_to(shell, &mut shown(&program), name.as_str(), completions)?;
    }
    let pages = directory.join(format!("man/man{section}"));
    fs::create_dir_all(&pages)?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    for command in program.get_subcommands() {
        if !command.is_hide_set() {
            page(command, section, &pages)?;
        }
    }
    page(&program, section, &pages)
}

/// Without what is hidden, which completions would offer.
fn shown(command: &Command) -> Command {
    // What they are called lives for ever where clap's feature `string` is off, as in what ships.
    let leak = |text: &str| -> &'static str { text.to_owned().leak() };
    let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
    let commands = command.get_subcommands().filter(|one| !one.is_hide_set());
    let mut shown = Command::new(leak(command.get_name()))
        .args(arguments.cloned())
        .subcommands(commands.map(shown))
        .disable_help_subcommand(command.is_disable_help_subcommand_set());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(leak(version));
    }
    shown
}

fn page(command: &Command, section: &str, pages: &Path) -> io::Result<()> {
    let page = Man::new(command.clone())
        .section(section)
        .source(concat!("Fleet ", env!("CARGO_PKG_VERSION")))
        .manual("Fleet");
    page.generate_to(pages).map(drop)
}
