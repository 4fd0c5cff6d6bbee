"""BM3 as one of the harness's models: the class of the `bm3` package, unchanged, and its names in traces."""

from torch import Tensor, nn

from bm3 import BM3

__all__ = ["BM3", "trace_tensors"]


def trace_tensors(model: BM3) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces: `image_*` for visual, else `<modality>_*`."""
    tensors: dict[str, Tensor] = {
        "user_embedding.weight": model.user_embedding,
        "item_id_embedding.weight": model.item_embedding,
        "predictor.weight": model.predictor.weight,
        "predictor.bias": model.predictor.bias,
    }
    for modality, features, projection in zip(model.modalities, model.features, model.projections, strict=True):
        prefix = "image" if modality == "visual" else modality
        tensors[f"{prefix}_embedding.weight"] = _tensor(features, "table")
        tensors[f"{prefix}_trs.weight"] = _tensor(projection, "weight")
        tensors[f"{prefix}_trs.bias"] = _tensor(projection, "bias")
    return tensors


def _tensor(module: nn.Module, name: str) -> Tensor:
    tensor: Tensor = getattr(module, name)
    return tensor
