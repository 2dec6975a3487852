//! What can go wrong with a request, as both doors report it.

pub type Result<T> = std::result::Result<T, Fault>;

/// Whose fault it is; HTTP status and gRPC code follow (CONTRACT §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 400, INVALID_ARGUMENT.
    Invalid,
    /// 401, UNAUTHENTICATED.
    Unauthenticated,
    /// 403, PERMISSION_DENIED.
    Denied,
    /// 404, NOT_FOUND.
    NotFound,
    /// 413, RESOURCE_EXHAUSTED.
    TooLarge,
    /// 429, RESOURCE_EXHAUSTED.
    Busy,
    /// 501, UNIMPLEMENTED.
    Unsupported,
    /// 503, UNAVAILABLE.
    Unavailable,
    /// 504, DEADLINE_EXCEEDED.
    Late,
    /// 500, INTERNAL: ours, never a client's.
    Internal,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
    /// Of `Busy` and `Unavailable`: when to try again.
    pub retry_after_s: Option<u32>,
}

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
            retry_after_s: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(Kind::Invalid, message)
    }

    pub fn internal(message: impl Into<String>) -> Fault {
        Fault::new(Kind::Internal, message)
    }
}
