use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_bootstrap::cli::main().into()
}
