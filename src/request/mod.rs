//! What a decision needs of a request's body, read as the bytes stream past.
