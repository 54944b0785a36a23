"""``skewless demo --drift``: weeks of a model on real flights, with injected faults."""

from skewless.demo.story.story import run_story

__all__ = ["run_story"]
