"""`bm3 profile`: where a training step and an evaluation spend their time."""
