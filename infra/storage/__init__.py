"""Files that survive a kill and a power cut: atomic writes, numbered files, series of records."""
