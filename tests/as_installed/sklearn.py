"""Hides scikit-learn from the processes that tests start.

``requirements.txt`` does not have it. LightGBM and XGBoost import it where they find it, which takes a second.
"""

raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
