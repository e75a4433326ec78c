//! What this program does as a container: it tries to reach the instance metadata service, as any task
//! could, and tells in its exit code.

use std::{
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use crate::clients::probe::Reach;

/// IPv4 and IPv6 (EC2 user guide, "Access instance metadata").
const SERVICES: [&str; 2] = ["169.254.169.254:80", "[fd00:ec2::254]:80"];
const LIMIT: Duration = Duration::from_secs(1);

pub(crate) fn run() -> ExitCode {
    let mut services = SERVICES.iter().filter_map(|service| service.parse().ok());
    let is_open =
        services.any(|service: SocketAddr| TcpStream::connect_timeout(&service, LIMIT).is_ok());
    let reach = if is_open { Reach::Open } else { Reach::Blocked };
    ExitCode::from(reach as u8)
}
