"""Deterministic training: named streams, batches, the epoch loop. Models and the run store are elsewhere."""
