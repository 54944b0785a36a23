"""Online storage: Redis and what stands before it."""
