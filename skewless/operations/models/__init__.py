"""Commands on models: versions, rollouts, quality, drift."""
