"""Data sets: the Dataset value, reading it from disk by name, splitting, synthetic data. Models are elsewhere."""
