"""Several processes that are one server, and the way out of each."""
