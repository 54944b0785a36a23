"""``skewless demo --drift``: months of a model's life on real flights, with what goes wrong in them."""

from skewless.demo.story.story import run_story

__all__ = ["run_story"]
