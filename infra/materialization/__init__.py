"""From source rows to the accepted log to the newest row of each entity in the online store."""
