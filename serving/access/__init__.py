"""Authentication and authorization of requests: API keys, scopes and rate limits."""
