"""How good the scores of a model are: the metrics of training, gate and live quality."""
