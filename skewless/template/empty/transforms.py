"""Features that are computed for each request. This module imports numpy only: model packages contain its source."""
