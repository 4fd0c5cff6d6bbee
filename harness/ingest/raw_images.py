"""Image features from the original files, `image_features_NAME.b`: records of an item's id and 4096 float32."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.ingest.raw_file import RawFile

IMAGE_WIDTH = 4096
ASIN_BYTES = 10
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Images:
    """What was read."""

    records: int
    other_items: int
    """Records of items that are not in the data set."""
    repeated: int
    """Further records of an item; the first counts."""
    without_image: list[int]
    """Items, ascending, whose row is the mean of the others."""


def read_images(file: RawFile, items: Mapping[bytes, int], table: NDArray[np.float32]) -> Images:
    """Fill `table` [I, width] with the features of `items`, which maps what the file calls an item to its row.

    Items without a record get the mean of the others. Raises DataError naming the byte at which the file is cut off or
    holds no record, for features that are not finite, and when no record belongs to an item of the data set.
    """
    width = table.shape[1]
    layout = np.dtype([("asin", np.uint8, (ASIN_BYTES,)), ("features", "<f4", (width,))])
    per_block = max(1, BLOCK_BYTES // layout.itemsize)
    records, repeated = 0, 0
    filled = np.zeros(len(table), bool)
    total = np.zeros(width)  # float64
    while block := file.read(per_block * layout.itemsize):
        whole, rest = divmod(len(block), layout.itemsize)
        if rest:
            begin = (records + whole) * layout.itemsize
            raise DataError(
                f"{file.path}: cut off: the record at byte {begin} has {rest} of {layout.itemsize} bytes; needed are "
                f"{ASIN_BYTES} bytes of id and {width} float32; download it again"
            )
        rows = np.frombuffer(block, layout)
        _check_asins(rows["asin"], file, records, layout.itemsize)
        owners = [items.get(asin.tobytes(), -1) for asin in rows["asin"]]
        wanted: list[tuple[int, int]] = []  # position in the block, item
        for position, item in enumerate(owners):
            if item >= 0 and filled[item]:
                repeated += 1
            elif item >= 0:
                filled[item] = True
                wanted.append((position, item))
        if wanted:
            positions, targets = np.array(wanted).T
            features = rows["features"][positions]
            finite = np.isfinite(features).all(axis=1)
            if not finite.all():
                position = int(positions[~finite][0])
                raise DataError(
                    f"{file.path}: the record at byte {(records + position) * layout.itemsize}, of item "
                    f"{rows['asin'][position].tobytes().decode()}, holds NaN or infinity; download the file again"
                )
            table[targets] = features
            total += features.sum(axis=0, dtype=np.float64)
        records += whole
    if not filled.any():
        raise DataError(
            f"{file.path}: none of {records} records belongs to an item of the ratings; needed are the image features "
            f"of the same category"
        )
    table[~filled] = total / filled.sum()
    without = np.flatnonzero(~filled).tolist()
    return Images(records, records - int(filled.sum()) - repeated, repeated, without)


def _check_asins(asins: NDArray[np.uint8], file: RawFile, records_before: int, record_bytes: int) -> None:
    """Raises DataError where an id [n, 10] is not visible ASCII: then records do not begin where they should."""
    bad = ((asins < ord("!")) | (asins > ord("~"))).any(axis=1)
    if bad.any():
        begin = (records_before + int(np.flatnonzero(bad)[0])) * record_bytes
        raise DataError(
            f"{file.path}: no item id at byte {begin}, where a record of {record_bytes} bytes should begin; needed is "
            f"a file of image features as it was published; download it again"
        )
