//! What can go wrong with a call, in the few kinds that somebody decides by.

use std::error::Error;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::{display::DisplayErrorContext, metadata::ProvideErrorMetadata};

/// A call that failed, after the SDK's own retries.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call} {resource}: {message}")]
pub(crate) struct CallError {
    /// `ecs:CreateCluster`.
    pub(crate) call: &'static str,
    /// What it was about.
    pub(crate) resource: String,
    pub(crate) kind: Kind,
    /// AWS's own code, if AWS answered.
    pub(crate) code: String,
    /// What AWS said, or why it could not be asked, and what to do.
    pub(crate) message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NotFound,
    AlreadyExists,
    /// Something else still uses it, or is still changing it.
    InUse,
    Throttled,
    Denied,
    /// No usable credentials.
    Credentials,
    /// No answer, or none from AWS.
    Unreachable,
    Other,
}

impl CallError {
    /// Gone on the next look, as it seems: whoever waits anyway goes on waiting.
    pub(crate) fn passes(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unreachable)
    }

    /// An answer that lacks what it must hold.
    pub(crate) fn malformed(call: &'static str, resource: &str, missing: &str) -> Self {
        Self {
            call,
            resource: resource.to_owned(),
            kind: Kind::Other,
            code: String::new(),
            message: format!("the answer holds no {missing}"),
        }
    }

    /// Whether AWS said this, by code or in words: many of its conditions have no code of their
    /// own.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.code.contains(text) || self.message.contains(text)
    }
}

/// `None` where the resource is not there; every other failure stays one.
pub(crate) fn found<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`CallError::passes`], of any error.
pub(crate) fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(CallError::passes)
}

/// Done, or there was nothing to do it to.
pub(crate) fn gone<T>(result: Result<T, CallError>) -> Result<(), CallError> {
    found(result).map(drop)
}

/// Turns the SDK's error of `call` on `resource` into ours.
pub(crate) fn failed<'a, E, R>(
    call: &'static str,
    resource: &'a str,
) -> impl FnOnce(SdkError<E, R>) -> CallError + 'a
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug,
{
    move |error| {
        let code = error.code().unwrap_or_default().to_owned();
        let (kind, message) = match &error {
            SdkError::ServiceError(_) => (
                kind_of(&code),
                match error.message() {
                    Some(message) if code.is_empty() => message.to_owned(),
                    Some(message) => format!("{message} ({code})"),
                    None if code.is_empty() => "an error without a code".to_owned(),
                    None => code.clone(),
                },
            ),
            SdkError::TimeoutError(_) => (Kind::Unreachable, "no answer in time".to_owned()),
            SdkError::ConstructionFailure(_)
            | SdkError::DispatchFailure(_)
            | SdkError::ResponseError(_)
            | _ => unreachable_or_unsigned(&error),
        };
        CallError {
            call,
            resource: resource.to_owned(),
            kind,
            code,
            message,
        }
    }
}

fn unreachable_or_unsigned<E, R>(error: &SdkError<E, R>) -> (Kind, String)
where
    E: Error + 'static,
    R: std::fmt::Debug,
{
    let text = chain(error);
    if text.to_lowercase().contains("credential") {
        (
            Kind::Credentials,
            format!(
                "no AWS credentials could be had: set AWS_PROFILE to a profile that exists, log in again if it \
                 is one of SSO, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({text})"
            ),
        )
    } else {
        (
            Kind::Unreachable,
            format!("no answer: {text}; check the network, HTTPS_PROXY and AWS_ENDPOINT_URL"),
        )
    }
}

/// The messages of an error and all its sources, each once.
fn chain<E, R>(error: &SdkError<E, R>) -> String
where
    E: Error + 'static,
    R: std::fmt::Debug,
{
    let mut messages = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        if !messages
            .iter()
            .any(|known: &String| known.contains(&message))
        {
            messages.push(message);
        }
        source = error.source();
    }
    if messages.is_empty() {
        return DisplayErrorContext(error).to_string();
    }
    messages.join(": ")
}

/// The services agree on no scheme: these are the codes that our calls meet.
fn kind_of(code: &str) -> Kind {
    match code {
        "NoSuchEntity"
        | "NoSuchEntityException"
        | "ParameterNotFound"
        | "InvalidAMIID.Unavailable"
        | "InvalidResourceId"
        | "ClusterNotFoundException"
        | "NoSuchBucket"
        | "NoSuchKey"
        | "NoSuchPublicAccessBlockConfiguration"
        | "NoSuchVersion"
        | "ServiceNotFoundException"
        | "ResourceNotFound"
        | "ResourceNotFoundException" => Kind::NotFound,
        "EntityAlreadyExists"
        | "EntityAlreadyExistsException"
        | "AlreadyExists"
        | "AlreadyExistsFault"
        | "BucketAlreadyExists"
        | "BucketAlreadyOwnedByYou"
        | "ParameterAlreadyExists"
        | "PreconditionFailed"
        | "InvalidGroup.Duplicate" => Kind::AlreadyExists,
        "BucketNotEmpty"
        | "ConditionalRequestConflict"
        | "OperationAborted"
        | "ResourceInUse"
        | "ResourceInUseFault"
        | "ResourceInUseException"
        | "ResourceContention"
        | "ScalingActivityInProgress"
        | "ScalingActivityInProgressFault"
        | "UpdateInProgressException"
        | "DependencyViolation"
        | "DeleteConflict"
        | "ConcurrentModification"
        | "ClusterContainsContainerInstancesException"
        | "ClusterContainsServicesException"
        | "ClusterContainsTasksException"
        | "ClusterContainsCapacityProviderException" => Kind::InUse,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "UnauthorizedException"
        | "AuthFailure" => Kind::Denied,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch" => Kind::Credentials,
        "RequestLimitExceeded" | "SlowDown" | "Throttling" | "ThrottlingException" => {
            Kind::Throttled
        }
        // EC2 has a code for each kind of resource.
        other if other.ends_with(".NotFound") || other.ends_with(".NotFoundException") => {
            Kind::NotFound
        }
        other if other.ends_with(".AlreadyExistsException") => Kind::AlreadyExists,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> CallError {
        CallError {
            call: "ecs:DeleteCluster",
            resource: "shop-dev".into(),
            kind,
            code: "X".into(),
            message: "no (X)".into(),
        }
    }

    #[test]
    fn codes_of_every_scheme_have_their_kind() {
        for (code, kind) in [
            ("NoSuchEntity", Kind::NotFound),
            (
                "InvalidLaunchTemplateName.NotFoundException",
                Kind::NotFound,
            ),
            ("InvalidGroup.NotFound", Kind::NotFound),
            ("ParameterAlreadyExists", Kind::AlreadyExists),
            (
                "InvalidLaunchTemplateName.AlreadyExistsException",
                Kind::AlreadyExists,
            ),
            ("DependencyViolation", Kind::InUse),
            ("ScalingActivityInProgress", Kind::InUse),
            ("AccessDeniedException", Kind::Denied),
            ("NoSuchBucket", Kind::NotFound),
            ("PreconditionFailed", Kind::AlreadyExists),
            ("OperationAborted", Kind::InUse),
            ("SlowDown", Kind::Throttled),
            ("ExpiredToken", Kind::Credentials),
            ("RequestLimitExceeded", Kind::Throttled),
            ("ValidationError", Kind::Other),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }

    #[test]
    fn only_not_found_counts_as_absent() {
        assert!(gone::<()>(Err(error(Kind::NotFound))).is_ok());
        for kind in [
            Kind::Denied,
            Kind::Throttled,
            Kind::Unreachable,
            Kind::Other,
        ] {
            assert!(found::<()>(Err(error(kind))).is_err(), "{kind:?}");
        }
        assert_eq!(
            error(Kind::Other).to_string(),
            "ecs:DeleteCluster shop-dev: no (X)"
        );
    }
}
