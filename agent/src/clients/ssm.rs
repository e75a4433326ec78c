//! Systems Manager: parameters.

use anyhow::{Context as _, Result};

use super::aws::{Aws, explain};

pub(crate) trait Ssm {
    /// A parameter's value, decrypted.
    async fn parameter(&self, name: &str) -> Result<String>;
}

impl Ssm for Aws {
    async fn parameter(&self, name: &str) -> Result<String> {
        let asked = self.ssm().await.get_parameter();
        let asked = asked.name(name).with_decryption(true).send().await;
        let found = asked.map_err(|error| explain("ssm:GetParameter", name, &error))?;
        let value = found.parameter.and_then(|parameter| parameter.value);
        value.with_context(|| format!("ssm:GetParameter of {name}: no value in the reply"))
    }
}
