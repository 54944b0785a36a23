"""The report: models and project on one HTML page without external files."""
