"""GPUs: nvForest and XGBoost score models on a device, and XGBoost trains there."""
