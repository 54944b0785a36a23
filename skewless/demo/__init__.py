"""The whole walk on a project's own data: its clock goes back to before the test period and lives through it."""

from skewless.demo.full_demo import run_demo

__all__ = ["run_demo"]
