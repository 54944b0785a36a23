"""Files that survive a kill and a power cut: whole writes, numbered files, series of records."""
