"""Nine recommenders, batches and evaluation as one writes them down first: dense, per edge, unfused, in Python loops.

They are the benchmark's baselines and used for nothing else. `test_textbook` holds each to what the project's own code
computes.
"""

from textbook.batches import TextbookBatches
from textbook.bm3 import TextbookBM3
from textbook.bpr import TextbookBPR
from textbook.buir import TextbookBUIR
from textbook.dualgnn import TextbookDualGNN
from textbook.evaluation import TextbookEvaluation
from textbook.grcn import TextbookGRCN
from textbook.lattice import TextbookLATTICE
from textbook.lightgcn import TextbookLightGCN
from textbook.mmgcn import TextbookMMGCN
from textbook.shared import Textbook
from textbook.vbpr import TextbookVBPR

__all__ = [
    "Textbook",
    "TextbookBM3",
    "TextbookBPR",
    "TextbookBUIR",
    "TextbookBatches",
    "TextbookDualGNN",
    "TextbookEvaluation",
    "TextbookGRCN",
    "TextbookLATTICE",
    "TextbookLightGCN",
    "TextbookMMGCN",
    "TextbookVBPR",
]
