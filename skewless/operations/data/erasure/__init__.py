"""The erasure of an entity from everything that a project has stored."""
