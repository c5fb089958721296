//! Effects: what a picker wants done, for the host to carry out.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::reply::LocalReply;
use crate::body::BodyView;
use crate::endpoints::discovery::{Listing, Survey};
use crate::findings::Level;

/// One request and its response. The host chooses the number; it is unique among the exchanges under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExchangeId(pub u32);

/// The way in which the body of a held request is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyDemand {
    /// All that has come, each time: parts that were read may be read again. The body is known to fit the
    /// host's buffers.
    Replayable,
    /// Each part once is enough. The host stops reading rather than fail where its buffers are full.
    Streaming,
}

/// One fetch. The picker chooses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u32);

/// The page to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetch {
    /// The list of the pool's members, from the proxy.
    Members,
    /// What clusters the proxy has, of which that of this number in the document is none.
    Survey {
        /// The number.
        missing: usize,
    },
    /// The metrics page of an endpoint.
    Metrics {
        /// The endpoint's address.
        address: String,
    },
    /// SGLang's [`/v1/loads`](crate::endpoints::loads) of an endpoint.
    Loads {
        /// The endpoint's address.
        address: String,
    },
}

/// The result of a fetch.
pub enum Fetched<'a> {
    /// The pool's members, for [`Fetch::Members`].
    Members(Listing),
    /// What else the proxy has, for [`Fetch::Survey`].
    Survey(Survey),
    /// A page of an endpoint, for [`Fetch::Metrics`] and [`Fetch::Loads`].
    Page(&'a mut dyn BodyView),
}

/// Something for the host to do. Effects may be about any exchange, whichever event they follow.
#[derive(Debug)]
pub enum Effect {
    /// Hold a request, and show its body as it comes. [`Picker::awaits_body`](super::Picker::awaits_body) says whether
    /// it is held for its body, or in a queue.
    Hold {
        /// The request.
        id: ExchangeId,
        /// How to show the body.
        body: BodyDemand,
    },
    /// Show the bytes of a held request's body once more: a part was left unread, and no more arrive.
    ShowBody {
        /// The request.
        id: ExchangeId,
    },
    /// Replace bytes of a held request's body now: the host does not keep what it has shown.
    RewriteBody {
        /// The request.
        id: ExchangeId,
        /// The replacement.
        rewrite: Rewrite,
    },
    /// Forward a request.
    Forward {
        /// The request.
        id: ExchangeId,
        /// Its destination and changes.
        route: Route,
    },
    /// Leave a request to the host's own load balancing.
    Bypass {
        /// The request.
        id: ExchangeId,
        /// A replacement in the body, which comes first.
        rewrite: Option<Rewrite>,
    },
    /// Send a local reply to a request instead of forwarding it.
    Reply {
        /// The request.
        id: ExchangeId,
        /// The reply.
        reply: LocalReply,
    },
    /// Send a local reply to a request that was forwarded, or reset it if its response has begun.
    Evict {
        /// The request.
        id: ExchangeId,
        /// The reply.
        reply: LocalReply,
    },
    /// Log something that an operator should know.
    Log {
        /// How bad it is.
        level: Level,
        /// One line, without control characters.
        text: String,
    },
    /// Fetch something, and hand it to [`Picker::fetched`](super::Picker::fetched).
    Fetch {
        /// The id of the fetch.
        id: FetchId,
        /// The page to fetch.
        fetch: Fetch,
        /// How long to wait for it.
        timeout: Duration,
    },
    /// Set a header of a response, such as the explanation that the client requested
    /// ([`EXPLAIN_HEADER`](crate::protocol::EXPLAIN_HEADER)).
    SetResponseHeader {
        /// The request.
        id: ExchangeId,
        /// The header's name, in lower case.
        name: String,
        /// The header's value.
        value: String,
    },
    /// Remove a header of a response, which is not for the client.
    RemoveResponseHeader {
        /// The request.
        id: ExchangeId,
        /// The header's name, in lower case.
        name: &'static str,
    },
}

/// Bytes of a body, counted from its first, and what takes their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Their range in the body.
    pub range: Range<usize>,
    /// The text that replaces them.
    pub text: String,
}

/// The addresses of a pick and of the retry targets, of which there are two by default.
pub(super) type Addresses = SmallVec<[Arc<str>; 4]>;

/// The destination of a request.
#[derive(Debug)]
pub struct Route {
    pub(super) endpoints: Addresses,
    /// Further headers to set, as for an endpoint that computes the prompt.
    pub headers: Vec<(&'static str, String)>,
    /// A replacement in the body, which comes first.
    pub rewrite: Option<Rewrite>,
}

impl Route {
    /// Returns the addresses of the endpoints, in the order in which they are to be tried.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> + Clone {
        self.endpoints.iter().map(|address| &**address)
    }
}

impl Effect {
    /// Returns which exchange it is about, if it is about one.
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::Fetch { .. } | Self::Log { .. } => None,
            Self::Hold { id, .. }
            | Self::ShowBody { id }
            | Self::RewriteBody { id, .. }
            | Self::Forward { id, .. }
            | Self::Bypass { id, .. }
            | Self::Reply { id, .. }
            | Self::Evict { id, .. }
            | Self::SetResponseHeader { id, .. }
            | Self::RemoveResponseHeader { id, .. } => Some(*id),
        }
    }

    /// Returns whether it ends the holding of a request.
    pub fn is_decision(&self) -> bool {
        matches!(
            self,
            Self::Forward { .. } | Self::Bypass { .. } | Self::Reply { .. }
        )
    }
}
