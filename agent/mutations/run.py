#!/usr/bin/env python3
"""Breaks one rule of the lifecycle at a time, in a copy of the tree, and tells whether the
simulation catches it, or else the unit tests. Arguments: names of mutants; without any, all of
them. `--check` only tells which texts are no longer there."""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "mutants"
TREE = WORK / "tree"
# Each is compiled once and run for a short while: quickly compiled is better than quick.
QUICKLY = [
    "--config", "profile.dev.package.fleet-agent.opt-level=1",
    "--config", "profile.dev.package.fleet-agent.codegen-units=16",
]
PACKAGE = "cargo test --locked --quiet -p fleet-agent --features simulation".split()
TEST = [*PACKAGE, "--test", "simulation", *QUICKLY]
# Rules for what hardly ever happens in a story.
UNITS = [*PACKAGE, "--lib", *QUICKLY, "lifecycle"]


def copy_tree():
    """Files that are as they were keep their times, so that only the mutated crate is built again."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    )
    names = set(listed.stdout.decode().split("\0"))
    for known in TREE.rglob("*"):
        if known.is_file() and str(known.relative_to(TREE)) not in names:
            known.unlink()
    for name in names:
        source, target = ROOT / name, TREE / name
        if not name or not source.is_file():
            continue
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def run(command, log):
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(WORK / "target"),
        "RUST_BACKTRACE": "0",
        "FLEET_SIMULATION_SEEDS": os.environ.get("FLEET_SIMULATION_SEEDS", "0..300"),
        # What a mutant leaves unused is no error.
        "RUSTC_WORKSPACE_WRAPPER": "",
    }
    with open(log, "w", encoding="utf-8") as out:
        done = subprocess.run(command, cwd=TREE, env=environment, stdout=out, stderr=out, check=False)
    return done.returncode == 0


def is_there(mutant, tree):
    return (tree / mutant["file"]).read_text(encoding="utf-8").count(mutant["from"]) == 1


def failed(log):
    names = re.findall(r"^    ([\w:]+)$", log.read_text(encoding="utf-8"), re.MULTILINE)
    return ", ".join(dict.fromkeys(name.rsplit("::", 1)[-1] for name in names)) or f"see {log}"


def outcome(mutant):
    copy_tree()
    if not is_there(mutant, TREE):
        return "STALE: the text is not there exactly once"
    path = TREE / mutant["file"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant["from"], mutant["to"]), encoding="utf-8")
    log = WORK / f"{mutant['name']}.log"
    if not run([*TEST, "--no-run"], log):
        return f"STALE: does not compile, see {log}"
    if run([*TEST, "no_story", "--", "--nocapture"], log):
        return "MISSED" if run(UNITS, log) else f"caught: unit tests only, {failed(log)}"
    kinds = re.findall(r"^(\w+): (\d+) seeds", log.read_text(encoding="utf-8"), re.MULTILINE)
    return "caught: " + (", ".join(f"{kind} {seeds}" for kind, seeds in kinds) or f"see {log}")


def main():
    with open(ROOT / "agent" / "mutations" / "list.toml", "rb") as file:
        mutants = tomllib.load(file)["mutant"]
    if sys.argv[1:] == ["--check"]:
        stale = [mutant["name"] for mutant in mutants if not is_there(mutant, ROOT)]
        sys.exit(f"not exactly once in its file: {', '.join(stale)}" if stale else 0)
    wanted = set(sys.argv[1:])
    missed = False
    for mutant in mutants:
        if wanted and mutant["name"] not in wanted:
            continue
        result = outcome(mutant)
        missed |= not result.startswith("caught")
        print(f"{mutant['name']:<28} {result}", flush=True)
    copy_tree()
    sys.exit(missed)


main()
