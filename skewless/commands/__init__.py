"""The commands of ``skewless``, one module each."""
