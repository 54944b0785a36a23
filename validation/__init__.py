"""Data gates and the replay that proves what was served."""
