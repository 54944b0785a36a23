"""From Feast objects to the FeaturePlan."""
