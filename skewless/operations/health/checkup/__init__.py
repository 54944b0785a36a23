"""The checks of ``skewless doctor``."""
