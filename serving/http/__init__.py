"""HTTP API: routes, replies, and the fast path of prediction requests, which bypasses the web framework."""
