"""The control room: pages for the people who operate a project, one page per question (``skewless ui``)."""
