"""Who may ask: API keys and the file that they are kept in."""
