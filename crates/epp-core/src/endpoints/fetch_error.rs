//! The reasons why a fetch brings nothing: a metrics page, or the list of members.

/// The reason why a fetch brought nothing, as far as the host shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchError {
    /// The host has no cluster of the name through which the page is fetched.
    WrongCluster,
    /// The host did not send the request: no endpoint of the cluster is healthy, or a circuit breaker is open.
    Unsent,
    /// The connection failed: it was refused, or the address cannot be reached.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// Nothing came in time.
    Timeout,
    /// The connection was closed before the response had ended, as by a port that expects TLS.
    Reset,
    /// The response is not HTTP.
    NotHttp,
    /// The response has another status than 200.
    Status(u16),
    /// The page is longer than what is read, or there is no memory for it.
    TooLarge,
    /// The page is none of the expected kind.
    NotAPage,
    /// The page lists none of the clusters whose members are wanted.
    NotListed,
}

impl FetchError {
    /// Returns the reason's name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongCluster => "wrong-cluster",
            Self::Unsent => "unsent",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::NotHttp => "not-http",
            Self::Status(_) => "status",
            Self::TooLarge => "too-large",
            Self::NotAPage => "not-a-page",
            Self::NotListed => "not-listed",
        }
    }

    /// Returns the reason for people: the name, and which status it is.
    pub fn text(self) -> String {
        let mut text = self.name().to_owned();
        if let Self::Status(status) = self {
            text.push(' ');
            text.push_str(&status.to_string());
        }
        text
    }
}
