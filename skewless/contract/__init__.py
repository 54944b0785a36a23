"""What all parts agree on, as pure values and logic: plan, keys, rows, windows, vectors, errors, settings, time."""
