//! Replies of this node's own services, which are not trusted to end.

use anyhow::{Result, ensure};

/// A reply's text, as far as it is text.
///
/// # Errors
/// If it is longer than `limit` bytes, or breaks off.
pub(super) async fn text(mut reply: reqwest::Response, limit: usize) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(reqwest::Error::without_url)? {
        ensure!(
            bytes.len() + chunk.len() <= limit,
            "the reply is longer than {limit} bytes"
        );
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
