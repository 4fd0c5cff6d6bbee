"""Five tools beside the comparison with a paper. Each is whole in its folder, and the others work without it."""
