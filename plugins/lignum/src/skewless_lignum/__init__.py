"""lignum as a second runtime of LightGBM, XGBoost and CatBoost models."""
