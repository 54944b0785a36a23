"""The report: everything that is known of the models in use, on one page that needs nothing else."""
