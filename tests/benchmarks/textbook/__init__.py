"""Six recommenders as one writes them down first: dense, per edge, unfused. They are the benchmark's baselines.

`test_textbook` holds each to the loss and gradients of the project's own model. They are used for nothing else.
"""

from textbook.bm3 import TextbookBM3
from textbook.dualgnn import TextbookDualGNN
from textbook.grcn import TextbookGRCN
from textbook.lattice import TextbookLATTICE
from textbook.mmgcn import TextbookMMGCN
from textbook.shared import Textbook
from textbook.vbpr import TextbookVBPR

__all__ = [
    "Textbook",
    "TextbookBM3",
    "TextbookDualGNN",
    "TextbookGRCN",
    "TextbookLATTICE",
    "TextbookMMGCN",
    "TextbookVBPR",
]
