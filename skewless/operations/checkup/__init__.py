"""What ``skewless doctor`` looks at, one part of the world per file."""
