//! What can go wrong with a CRI call. Reads a gRPC status, keeps the name of the call and the runtime's own words.
//!
//! Invariant: `Display` is `rpc error: code = NAME desc = TEXT`, the form users know from pod events.

use tonic::Code;

/// A call that failed, with the runtime's code and words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", code_name(*.code))]
pub struct Error {
    /// The CRI call, as the proto names it (`RunPodSandbox`).
    pub call: &'static str,
    pub code: Code,
    pub message: String,
}

impl Error {
    pub(crate) fn new(call: &'static str, status: tonic::Status) -> Error {
        let mut message = status.message().to_string();
        if message == "transport error" || message.is_empty() {
            message = with_sources(&status);
        }
        Error { call, code: status.code(), message }
    }

    pub(crate) fn deadline(call: &'static str) -> Error {
        Error { call, code: Code::DeadlineExceeded, message: "context deadline exceeded".to_string() }
    }

    /// The object does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// The runtime does not implement this call.
    pub fn is_unimplemented(&self) -> bool {
        self.code == Code::Unimplemented
    }

    /// Nobody answers on the socket: the runtime is down or restarting.
    pub fn is_unavailable(&self) -> bool {
        self.code == Code::Unavailable
    }

    /// It will answer soon: nobody listens yet, or containerd listens and is still reading its state.
    pub fn is_starting(&self) -> bool {
        self.is_unavailable() || self.message.contains("server is not initialized yet")
    }
}

/// The status text followed by its causes, since "transport error" alone helps nobody.
fn with_sources(status: &tonic::Status) -> String {
    let mut text = status.message().to_string();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// gRPC's code as Go prints it, since users know the texts from there.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_gos_grpc_errors() {
        let error = Error::new("PullImage", tonic::Status::not_found("no such image"));
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = no such image");
        assert!(error.is_not_found());
    }
}
