"""What `bm3 data prepare` is asked to do, and the checks that need no reading. Carrying it out is in `amazon`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bm3 import ConfigError, DataError
from harness.data.layouts import SYNTHETIC
from harness.data.split import RULES, split_rule
from harness.data.words import DEFAULT_SPLIT_SEED
from harness.ingest.raw_file import RawFile
from harness.ingest.raw_images import ASIN_BYTES, IMAGE_WIDTH
from harness.ingest.split_file import split_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Plan:
    """What to read, how to divide it, and where to write. `checked` before anything is read."""

    name: str
    ratings: Path
    metadata: Path | None
    """None: no texts."""
    images: Path | None
    """None: no visual features."""
    core: int
    """Interactions that every user and every item must have."""
    split: str
    """A rule's name, or the path of a given split."""
    given_seeds: tuple[int, ...]
    """Of the split, one per data set that is written; none: DEFAULT_SPLIT_SEED."""
    out: Path

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.given_seeds or (DEFAULT_SPLIT_SEED,)

    def target(self, seed: int) -> Path:
        """The folder of one data set; the seed is in its name where there are several."""
        return self.out / (self.name if len(self.seeds) == 1 else f"{self.name}-split{seed}")

    @property
    def targets(self) -> list[Path]:
        return [self.target(seed) for seed in self.seeds]

    @property
    def inputs(self) -> dict[str, Path]:
        """The files to read, by what they hold."""
        files = {"ratings": self.ratings, "metadata": self.metadata, "images": self.images}
        found = {kind: path for kind, path in files.items() if path is not None}
        return found if self.given_split is None else {**found, "split": self.given_split}

    @property
    def drawn(self) -> bool:
        """Whether the seed makes a difference. Raises ConfigError or DataError where there is no such split."""
        return self.given_split is None and split_rule(self.split).drawn

    @property
    def given_split(self) -> Path | None:
        """The file of the split if it is given. Raises DataError when there is none."""
        if self.split in RULES or not (os.sep in self.split or Path(self.split).exists()):
            return None
        return split_file(Path(self.split))


def checked(plan: Plan) -> Plan:
    """The plan, if it could be carried out as far as is known before reading. Raises ConfigError or DataError."""
    if not NAME.fullmatch(plan.name):
        raise ConfigError(f"{plan.name!r} is no name for a folder; use letters, digits, and . _ - after the first one")
    if plan.name in SYNTHETIC:
        raise ConfigError(f"{plan.name!r} is the name of a synthetic data set; choose another one")
    if plan.core < 1:
        raise ConfigError(f"core is {plan.core}, needed is at least 1 interaction")
    if len(set(plan.seeds)) < len(plan.seeds):
        raise ConfigError(f"a split seed is given twice among {', '.join(map(str, plan.seeds))}; give each once")
    if plan.given_seeds and not plan.drawn:
        raise ConfigError(f"split {plan.split}: nothing is drawn, so every seed gives the same; leave --split-seed out")
    for target in plan.targets:
        if target.exists():
            raise DataError(f"{target}: exists already; remove it or choose another name")
    for path in plan.inputs.values():
        with RawFile(path) as file:  # said now and not after long reading
            if path == plan.images:
                _check_whole(file)
    return plan


def _check_whole(file: RawFile) -> None:
    record = ASIN_BYTES + 4 * IMAGE_WIDTH
    if not file.compressed and file.size % record:
        raise DataError(
            f"{file.path}: {file.size} bytes are no multiple of {record}: cut off in the record at byte "
            f"{file.size // record * record}, or no file of image features; download it again"
        )
