"""The flights of 2013 as tables and events of the project in `feature_repo/`."""
