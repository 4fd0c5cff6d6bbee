"""A small category in the original files' formats, with hand-computed results; the tests that use it are beside it.

With --core 2: DAN and item T5 have one interaction and go in the first round; then ZOE and S4 have one left and go in
the second. NED, BEN and CARA with X1, Q2 and R3 stay, in that order of first appearance.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

X1, Q2, R3, S4, T5 = "B0000000X1", "B0000000Q2", "B0000000R3", "B0000000S4", "B0000000T5"
RATINGS = [
    ("NED", X1, 5.0, 100),
    ("ZOE", S4, 4.0, 50),
    ("BEN", X1, 3.0, 100),
    ("NED", Q2, 1.0, 200),
    ("NED", X1, 2.0, 300),  # a second time: left out, or NED's latest would be X1
    ("BEN", R3, 5.0, 250),
    ("CARA", R3, 2.0, 120),
    ("NED", R3, 4.0, 150),
    ("ZOE", T5, 4.0, 60),
    ("CARA", Q2, 4.0, 90),
    ("DAN", S4, 3.0, 10),
    ("BEN", Q2, 5.0, 400),
    ("CARA", X1, 5.0, 300),
]
METADATA = [
    rf"{{'asin': '{X1}', 'title': 'Cup &amp; lid', 'brand': 'Acme', 'price': 3.5, "
    r"'categories': [['Baby', 'Feeding'], ['Toys']], 'description': 'Two\nlines.'}",
    f"{{'asin': '{Q2}', 'title': 'cut o",
    f'{{"asin": "{Q2}", "description": "Soft", "price": null}}',
    f"{{'asin': '{T5}', 'title': 'of no item that is left'}}",
    "[1, 2]",
    "{'title': 'of nothing'}",
    f"{{'asin': '{X1}', 'title': 'again'}}",
]
WIDTH = 4096


def csv_of(ratings: list[tuple[str, str, float, int]]) -> str:
    return "".join(f"{user},{item},{rating},{time}\n" for user, item, rating, time in ratings)


def image_record(asin: str, features: NDArray[np.float32]) -> bytes:
    return asin.encode() + features.astype("<f4").tobytes()


def image_records(width: int = WIDTH) -> bytes:
    """Images of R3, of an item that falls out, and of X1; Q2 has none."""
    return b"".join(
        [
            image_record(R3, np.arange(width, dtype=np.float32)),
            image_record(T5, np.full(width, 9, np.float32)),
            image_record(X1, np.ones(width, np.float32)),
        ]
    )


def write_raw(folder: Path) -> dict[str, Path]:
    """The three files, by what they hold."""
    files = {"ratings": "ratings_Shop.csv", "metadata": "meta_Shop.json", "images": "image_features_Shop.b"}
    paths = {kind: folder / name for kind, name in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    paths["ratings"].write_text(csv_of(RATINGS), encoding="utf-8")
    paths["metadata"].write_text("\n".join(METADATA) + "\n", encoding="utf-8")
    paths["images"].write_bytes(image_records())
    return paths
