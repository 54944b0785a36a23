"""Tokens of OpenID Connect providers, which callers of a server may send in place of API keys."""
