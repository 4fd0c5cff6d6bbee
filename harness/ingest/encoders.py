"""Models that make vectors of texts and images, by sentence-transformers and timm, which are imported only here.

Whatever else has `name`, `revision`, `library` and `encode` does as well. Reading texts, finding images and adding the
vectors to a data set is `features`.
"""

import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from bm3 import ConfigError, DataError
from harness.common import sha256_of
from harness.data.files import reading
from harness.data.words import IMAGE_MODEL, TEXT_MODEL

MAX_PIXELS = 100_000_000

Content = TypeVar("Content", contravariant=True)


class Encoder(Protocol[Content]):
    """What makes vectors of texts (str) or of images (Path)."""

    name: str
    """As whoever repeats this must give it."""
    revision: str
    """Which state of the model this is."""
    library: str
    """What runs it, with version."""

    def encode(self, batch: Sequence[Content]) -> NDArray[Any]:
        """One row for each text or image, [n, d]."""


class SentenceEncoder:
    """A model of sentence-transformers, from a folder or by its name on the hub; weights are never unpickled."""

    def __init__(self, model: str = TEXT_MODEL, revision: str | None = None) -> None:
        library = _imported("sentence_transformers", "text", "sentence-transformers")
        local = Path(model).is_dir()
        self.name = model
        self.library = _version("sentence-transformers")
        self._model = _loaded(
            lambda: library.SentenceTransformer(
                model, revision=revision, local_files_only=local, model_kwargs={"use_safetensors": True}
            ),
            model,
        )
        self.revision = _folder_digest(Path(model)) if local else revision or _commit(self._model) or "not stated"

    def encode(self, batch: Sequence[str]) -> NDArray[Any]:
        """[n, d]"""
        rows: NDArray[Any] = self._model.encode(
            list(batch), batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True
        )
        return rows


class ImageEncoder:
    """A model of timm without its classifier, from a folder or by its name; each image as the model was trained to see.

    Raises DataError, when encoding, for a file that is no image or has too many pixels.
    """

    def __init__(self, model: str = IMAGE_MODEL, revision: str | None = None) -> None:
        timm = _imported("timm", "images", "timm")
        self._images = _imported("PIL.Image", "images", "Pillow")
        self._torch = _imported("torch", "images", "torch")
        local = Path(model).is_dir()
        self.library = _version("timm")
        self.name = model
        # On the hub a revision belongs to a repository: those of timm's own names are timm/NAME.
        where = f"local-dir:{model}" if local else f"hf-hub:timm/{model}@{revision}" if revision else model
        self._model = _loaded(lambda: timm.create_model(where, pretrained=True, num_classes=0).eval(), model)
        settings = timm.data.resolve_model_data_config(self._model)
        self._prepared = timm.data.create_transform(**settings, is_training=False)
        self.revision = _folder_digest(Path(model)) if local else revision or "not stated"

    def encode(self, batch: Sequence[Path]) -> NDArray[Any]:
        """[n, d]"""
        with self._torch.inference_mode():
            rows: NDArray[Any] = self._model(self._torch.stack([self._image(path) for path in batch])).numpy()
        return rows

    def _image(self, path: Path) -> Any:
        with reading(path), self._images.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: more than {MAX_PIXELS:,} pixels: make it smaller")
            return self._prepared(image.convert("RGB"))


def _imported(module: str, extra: str, library: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"this needs {library}: pip install 'bm3-harness[{extra}]'") from None


def _loaded(load: Callable[[], Any], model: str) -> Any:
    try:
        return load()
    except Exception as error:  # libraries raise what they like: OSError, RuntimeError, errors of the hub, ...
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"model {model!r} cannot be loaded ({text[:200]}): give a folder with --model") from error


def _version(library: str) -> str:
    return f"{library} {importlib.metadata.version(library)}"


def _commit(model: Any) -> str | None:
    """The commit that the hub served, where the library keeps it."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    return getattr(config, "_commit_hash", None)


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's files: a folder has no revision of its own."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(bytes.fromhex(sha256_of(path)))
    return f"sha256:{digest.hexdigest()}"
