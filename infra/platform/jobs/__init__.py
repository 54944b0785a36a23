"""Scheduled jobs: their schedule, lease, ledger and processes."""
