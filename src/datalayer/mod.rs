//! Endpoints and what is known of them: discovery, metrics pages, freshness.
