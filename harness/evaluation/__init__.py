"""Full-ranking evaluation: top items of every user, and metrics from them. Verdicts are elsewhere."""
