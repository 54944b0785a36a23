"""The demo on a project's own data: its clock starts before the test period and moves through it."""

from skewless.demo.full_demo import run_demo

__all__ = ["run_demo"]
