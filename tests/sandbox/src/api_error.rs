//! What a served API answers when it refuses.

/// An AWS service error: what the SDKs show as `.code()` and `.message()`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The code as AWS spells it on the wire.
    pub code: String,
    /// For humans, in AWS's words where they are known.
    pub message: String,
}

impl ApiError {
    /// A refusal at HTTP 400, as nearly all of AWS's are.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: code.into(),
            message: message.into(),
        }
    }

    /// The same with another HTTP status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}
