"""The port of experiment trackers, which plug-ins register in ``skewless.trackers``."""
