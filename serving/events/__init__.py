"""Events that come over HTTP."""
