"""Nine recommenders, batches and evaluation as one writes them down first: dense, per edge, unfused, in Python loops.

They are the benchmark's baselines and used for nothing else. `test_textbook` holds each to what the project's own code
computes.
"""

from textbook.epoch import Batches, Evaluation
from textbook.per_edge import GRCN, MMGCN, DualGNN
from textbook.shared import Textbook
from textbook.whole import BM3, BPR, BUIR, LATTICE, VBPR, LightGCN

__all__ = ["MODELS", "Batches", "Evaluation", "Textbook"]

MODELS = {one.__name__: one for one in (BPR, LightGCN, BUIR, VBPR, MMGCN, GRCN, DualGNN, LATTICE, BM3)}
