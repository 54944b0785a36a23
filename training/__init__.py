"""Training: datasets, trainers, evaluation plots, promotion, rollouts and scheduling."""
