//! STAND-IN, replaced at merge: starts moto_server and waits for its port.
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "stand-in"
)]
use std::{
    path::Path,
    process::{Child, Command},
    time::Duration,
};

pub struct Moto(Child, String);

impl Moto {
    pub async fn start(bin: &Path, port: u16, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        let child = Command::new(bin.join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self(child, format!("http://127.0.0.1:{port}")))
    }
}

impl Moto {
    pub fn url(&self) -> &str {
        &self.1
    }
    pub async fn stop(self) -> anyhow::Result<()> {
        drop(self);
        std::future::ready(Ok(())).await
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
