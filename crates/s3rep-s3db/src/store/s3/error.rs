//! The one place where errors of the SDK and of servers become ours.

use std::{error::Error as StdError, io, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use s3rep_core::{Error, ErrorKind, Scope};

use super::Bucket;

/// Longer messages of a server are cut.
const LONGEST_MESSAGE: usize = 160;

/// A call that failed: what the caller is told, and what the store itself must know to go on.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The status of the answer; `None` when there was none.
    status: Option<u16>,
    code: String,
    /// Whether the server may have done what it was asked, all the same.
    pub(super) unknown: bool,
}

impl Failure {
    /// The object is not there.
    pub(super) fn is_absent(&self) -> bool {
        self.code == "NoSuchKey"
    }

    /// The same of an answer that has no body to say so, to `HEAD`. A 404 without a code to any other request is
    /// of something in between.
    pub(super) fn is_absent_without_body(&self) -> bool {
        self.is_absent() || (self.status == Some(404) && matches!(&*self.code, "" | "NotFound"))
    }

    /// The precondition did not hold.
    pub(super) fn is_refused(&self) -> bool {
        self.status == Some(412)
    }

    /// Another conditional write of the object is under way.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == Some(409) && matches!(self.error.kind(), ErrorKind::Contention)
    }

    /// The server does not know this kind of request.
    pub(super) fn is_not_implemented(&self) -> bool {
        matches!(self.status, Some(405 | 501))
    }
}

impl Bucket {
    /// What a failed call means. `full` is the key, or empty for the bucket.
    pub(super) fn failure<E>(
        &self,
        error: SdkError<E, HttpResponse>,
        operation: &'static str,
        full: &str,
    ) -> Failure
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let failure = match &error {
            // A body that is not what such an answer has is no refusal.
            SdkError::ServiceError(answer) if answer.raw().status().is_success() => self.unreadable(&error),
            SdkError::ServiceError(answer) => {
                let answered = Answer {
                    status: answer.raw().status().as_u16(),
                    code: answer.err().code().unwrap_or_default(),
                    message: answer.err().message().unwrap_or_default(),
                    region: answer.raw().headers().get("x-amz-bucket-region"),
                    retry_after: answer
                        .raw()
                        .headers()
                        .get("retry-after")
                        .and_then(|seconds| seconds.trim().parse().ok())
                        .map(Duration::from_secs),
                };
                self.answered(&answered)
            }
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                Failure { status: Some(status), ..self.unreadable(&error) }
            }
            _ => self.unanswered(&error),
        };
        Failure {
            error: failure.error.with_operation(operation).with_context("at", self.place(full)),
            ..failure
        }
    }

    /// An outcome of one key of many, as the answer to `DeleteObjects` lists it.
    pub(super) fn outcome(&self, code: &str, message: &str, operation: &'static str, full: &str) -> Error {
        let status = match code {
            "InternalError" | "ServiceUnavailable" => 500,
            _ => 400,
        };
        let answer = Answer { status, code, message, region: None, retry_after: None };
        self.answered(&answer).error.with_operation(operation).with_context("at", self.place(full))
    }

    fn answered(&self, answer: &Answer<'_>) -> Failure {
        let error = answer.elsewhere(&self.connection.region).unwrap_or_else(|| answer.error());
        let unknown = answer.status >= 500 && error.kind() != ErrorKind::RateLimited;
        let error = if answer.code.is_empty() { error } else { error.with_context("code", answer.code) };
        let error = match self.without_secrets(answer.message) {
            message if message.is_empty() => error,
            message => error.with_context("server says", message),
        };
        let error = match answer.retry_after {
            Some(after) if error.is_temporary() => error.retry_after(after),
            _ => error,
        };
        Failure {
            error: error.with_context("status", answer.status),
            status: Some(answer.status),
            code: answer.code.to_owned(),
            unknown,
        }
    }

    /// An answer that ended early, or is none of S3.
    fn unreadable(&self, error: &(dyn StdError + 'static)) -> Failure {
        let is_cut = causes(error).any(|cause| cause.is::<io::Error>() || is_transport(cause));
        let ours = if is_cut {
            Error::new(ErrorKind::Unavailable, "the connection ended in the middle of the answer").temporary()
        } else {
            Error::new(ErrorKind::Unexpected, "the answer cannot be read")
                .with_advice("check that the URL is that of an S3 server and not of a web page or a console")
        };
        self.with_cause(ours, error, true)
    }

    fn unanswered<E: StdError + Send + Sync + 'static>(&self, error: &SdkError<E, HttpResponse>) -> Failure {
        let credentials = causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>());
        if let Some(problem) = credentials {
            return self.with_cause(no_credentials(problem), error, false);
        }
        let timeout = |message| Error::new(ErrorKind::Timeout, message).temporary();
        match error {
            SdkError::TimeoutError(_) => self.with_cause(timeout("no answer in time"), error, true),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                self.with_cause(timeout("no answer in time"), error, true)
            }
            SdkError::DispatchFailure(_) => {
                let refused = causes(error).any(|cause| {
                    let io = cause.downcast_ref::<io::Error>();
                    io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
                });
                let ours = Error::new(ErrorKind::Unavailable, "the server cannot be reached")
                    .temporary()
                    .with_advice("check the host and port of the URL, and that the server runs");
                self.with_cause(ours, error, !refused)
            }
            _ => {
                let ours = Error::new(ErrorKind::ConfigInvalid, "the request cannot be made")
                    .with_advice("check the bucket's name and the region of the URL");
                self.with_cause(ours, error, false)
            }
        }
    }

    /// The innermost cause says most: those around it say only where it came through.
    fn with_cause(&self, ours: Error, error: &(dyn StdError + 'static), unknown: bool) -> Failure {
        let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
        let error = ours.with_context("cause", self.without_secrets(&cause));
        Failure { error, status: None, code: String::new(), unknown }
    }

    /// A text of a server or a library, fit for a message.
    fn without_secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets().into_iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "***");
        }
        if let Some((end, _)) = text.char_indices().nth(LONGEST_MESSAGE) {
            text.truncate(end);
        }
        text
    }
}

/// What a server said instead of doing what it was asked.
struct Answer<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    region: Option<&'a str>,
    retry_after: Option<Duration>,
}

impl Answer<'_> {
    /// The bucket is in another region.
    fn elsewhere(&self, region: &str) -> Option<Error> {
        let is_elsewhere =
            matches!(self.status, 301 | 307) || matches!(self.code, "AuthorizationHeaderMalformed");
        // `HEAD` has no body, so no code.
        let is_bare = self.status == 400 && self.code.is_empty();
        let error = |message| Error::new(ErrorKind::ConfigInvalid, message).with_scope(Scope::Sink);
        match self.region.filter(|actual| *actual != region) {
            Some(actual) if is_elsewhere || is_bare => {
                let error = error("the bucket is in another region")
                    .with_context("its region", actual)
                    .with_advice(format!("add ?region={actual} to the URL"));
                Some(error)
            }
            _ if is_elsewhere => Some(
                error("the server wants another region or host")
                    .with_context("region", region)
                    .with_advice("add ?region=… with the bucket's region to the URL"),
            ),
            _ => None,
        }
    }

    fn error(&self) -> Error {
        match self.code {
            "NoSuchBucket" => Error::new(ErrorKind::NotFound, "there is no such bucket")
                .with_scope(Scope::Sink)
                .with_advice("check the bucket's name in the URL, or create the bucket"),
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired"
            | "InvalidSecurity"
            | "NotSignedUp"
            | "Unauthorized" => {
                Error::new(ErrorKind::Unauthenticated, "the server does not take the credentials")
                    .with_scope(Scope::Sink)
                    .with_advice(self.credentials_advice())
            }
            "RequestTimeTooSkewed" => {
                Error::new(ErrorKind::Unauthenticated, "this machine's clock is not the server's")
                    .with_scope(Scope::Sink)
                    .with_advice("set the clock of this machine: requests are signed with the time")
            }
            "SlowDown"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "BandwidthLimitExceeded"
            | "RequestThrottled" => slow_down(),
            "RequestTimeout" => Error::new(ErrorKind::Timeout, "the server waited too long").temporary(),
            "OperationAborted" | "ConditionalRequestConflict" => {
                Error::new(ErrorKind::Contention, "somebody else is writing this object").temporary()
            }
            "EntityTooLarge"
            | "MetadataTooLarge"
            | "KeyTooLongError"
            | "KeyTooLong"
            | "RequestHeaderSectionTooLarge"
            | "MaxMessageLengthExceeded" => {
                Error::new(ErrorKind::TooLarge, "the object is larger than the server takes")
                    .with_scope(Scope::Record)
                    .with_advice("shorten the id, or give the resource the behavior 'body-overflow'")
            }
            "QuotaExceeded"
            | "InsufficientStorage"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded" => {
                Error::new(ErrorKind::StorageFull, "the store is full").with_scope(Scope::Sink)
            }
            "InvalidObjectState" => {
                Error::new(ErrorKind::Unsupported, "the object is archived and cannot be read as it is")
                    .with_scope(Scope::Record)
                    .with_advice("restore it from its storage class first")
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => forbidden(),
            "InvalidBucketName" => Error::new(ErrorKind::ConfigInvalid, "this is no name of a bucket"),
            _ => self.by_status(),
        }
    }

    fn by_status(&self) -> Error {
        match self.status {
            401 => Error::new(ErrorKind::Unauthenticated, "the server wants credentials")
                .with_scope(Scope::Sink)
                .with_advice(self.credentials_advice()),
            403 => forbidden(),
            404 if self.code.is_empty() => Error::new(ErrorKind::NotFound, "there is nothing here"),
            429 => slow_down(),
            405 | 501 => Error::new(ErrorKind::Unsupported, "the server cannot do this"),
            507 => Error::new(ErrorKind::StorageFull, "the store is full").with_scope(Scope::Sink),
            500..=599 => Error::new(ErrorKind::Unavailable, "the server has a problem").temporary(),
            _ => Error::new(ErrorKind::Unexpected, "the server refuses this in a way that is not known")
                .with_advice(
                    "check that the URL is that of an S3 server; the code is explained in its documentation",
                ),
        }
    }

    fn credentials_advice(&self) -> &'static str {
        match self.code {
            "ExpiredToken" | "TokenRefreshRequired" => "renew the temporary credentials",
            _ => {
                "check the keys; in a URL they are percent-encoded: '/' is %2F, '+' is %2B. Without keys in the \
                 URL they come from the environment or from ~/.aws"
            }
        }
    }
}

fn forbidden() -> Error {
    Error::new(ErrorKind::PermissionDenied, "the server refuses this").with_scope(Scope::Sink).with_advice(
        "allow s3:GetObject, s3:ListBucket and, to write, s3:PutObject and s3:DeleteObject; without \
         s3:ListBucket an absent object looks forbidden",
    )
}

fn slow_down() -> Error {
    Error::new(ErrorKind::RateLimited, "the server wants fewer requests").temporary()
}

fn no_credentials(problem: &CredentialsError) -> Error {
    let error = match problem {
        CredentialsError::ProviderTimedOut(_) => {
            Error::new(ErrorKind::Timeout, "whoever has the credentials does not answer").temporary()
        }
        CredentialsError::CredentialsNotLoaded(_) => {
            Error::new(ErrorKind::Unauthenticated, "there are no credentials")
        }
        _ => Error::new(ErrorKind::Unauthenticated, "the credentials cannot be loaded"),
    };
    error.with_scope(Scope::Sink).with_advice(
        "write s3://KEY:SECRET@bucket, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or add \
         ?anonymous=true for a public bucket",
    )
}

/// An error and everything behind it.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error of the HTTP library, which is no dependency of ours: its messages are all that tells.
fn is_transport(error: &(dyn StdError + 'static)) -> bool {
    let text = error.to_string();
    [
        "error reading a body from connection",
        "connection closed before message completed",
        "end of file before",
    ]
    .iter()
    .any(|known| text.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, region: Option<&str>) -> Error {
        let answer = Answer { status, code, message: "", region, retry_after: None };
        answer.elsewhere("us-east-1").unwrap_or_else(|| answer.error())
    }

    #[test]
    fn known_answers_have_their_kind() {
        use ErrorKind::*;
        for (status, code, kind, temporary) in [
            (404, "NoSuchBucket", NotFound, false),
            (403, "InvalidAccessKeyId", Unauthenticated, false),
            (403, "SignatureDoesNotMatch", Unauthenticated, false),
            (403, "RequestTimeTooSkewed", Unauthenticated, false),
            (403, "AccessDenied", PermissionDenied, false),
            (403, "", PermissionDenied, false),
            (503, "SlowDown", RateLimited, true),
            (429, "", RateLimited, true),
            (500, "InternalError", Unavailable, true),
            (503, "", Unavailable, true),
            (400, "RequestTimeout", Timeout, true),
            (400, "MetadataTooLarge", TooLarge, false),
            (400, "KeyTooLongError", TooLarge, false),
            (409, "ConditionalRequestConflict", Contention, true),
            (501, "NotImplemented", Unsupported, false),
            (507, "", StorageFull, false),
            (418, "Teapot", Unexpected, false),
            (400, "InvalidArgument", Unexpected, false),
        ] {
            let error = answer(status, code, None);
            assert_eq!((error.kind(), error.is_temporary()), (kind, temporary), "{status} {code}");
        }
    }

    #[test]
    fn another_region_is_named() {
        for (status, code) in [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (400, "")] {
            let error = answer(status, code, Some("eu-west-1"));
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.advice().is_some_and(|advice| advice.contains("?region=eu-west-1")), "{error}");
        }
        assert_eq!(answer(400, "InvalidArgument", Some("eu-west-1")).kind(), ErrorKind::Unexpected);
        assert_eq!(answer(404, "NoSuchBucket", Some("eu-west-1")).kind(), ErrorKind::NotFound);
    }
}
