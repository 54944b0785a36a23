"""Commands on the state: backups, bundles, recovery, housekeeping."""
