//! What the workers of one Envoy share: who polls, and what the poll found.
