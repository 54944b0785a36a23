"""The transport-free core: questions in, answers out."""
