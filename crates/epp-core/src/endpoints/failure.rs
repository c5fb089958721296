//! What an answer says of the endpoint that gave it, or failed to.

/// Why an endpoint is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// It refused, reset or timed out, or Envoy sent the request elsewhere after its answer.
    #[default]
    Unserved,
    /// It answers 5xx.
    Errors,
    /// It answers 503.
    Overloaded,
    /// Neither an answer nor a metrics page comes.
    Hung,
}

impl Reason {
    /// All, in the order of their numbers in shared data.
    pub const ALL: [Self; 4] = [Self::Unserved, Self::Errors, Self::Overloaded, Self::Hung];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unserved => "unserved",
            Self::Errors => "errors",
            Self::Overloaded => "overloaded",
            Self::Hung => "hung",
        }
    }
}

/// A request that an endpoint did not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// In which way.
    pub reason: Reason,
    /// Whether no request can cause it: the connection was refused, or the same request was served
    /// by another endpoint. Any other failure may be the request's own: a prompt that a server
    /// answers with 500, that makes it close the connection, or that takes longer than a timeout.
    pub certain: bool,
}

/// One request's outcome at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The request.
    pub request: u32,
    /// Tells its prompt from others by how it begins; none where no prompt was read.
    pub prompt: Option<u64>,
    /// Whether it has a body. An endpoint whose engine is dead may still list its models.
    pub bodied: bool,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
}
