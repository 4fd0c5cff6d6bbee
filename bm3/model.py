"""BM3: bootstrapped multimodal recommendation without negative samples.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023, arXiv 2207.05969,
doi 10.1145/3543507.3583251. Where the text and the code behind the published tables differ, both are options of
`BM3Config`. Training loop, data and evaluation belong to the user of the model.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3.data import Batch, Loss, TrainingData
from bm3.errors import ConfigError, DataError
from bm3.features import FeatureTable, distinct, merges
from bm3.graph import SparseProduct, bipartite_adjacency, mean_readout, symmetric_normalised
from bm3.losses import alignment_loss, masked_loss, published_regulariser, reconstruction_loss, squared_norm
from bm3.variant import Variant

Objective = Literal["published", "paper"]
Features = Literal["trained", "frozen"]


@dataclass(frozen=True, kw_only=True)
class BM3Config:
    """Hyper-parameters and variants of BM3. Raises ConfigError for impossible values."""

    embedding_size: int = 64
    """d, width of the ID embeddings and of the projected modalities."""
    n_layers: int = 1
    """L, propagation rounds. Published grid: 1, 2."""
    dropout: float = 0.5
    """p, probability that an entry of a target view is dropped. Published grid: 0.3, 0.5."""
    reg_weight: float = 0.1
    """λ, weight of the regulariser. Published grid: 0.1, 0.01."""
    cl_weight: float = 2.0
    """Weight of L_align and L_mask in the published objective; the paper's has none."""
    objective: Objective = "published"
    """`published`: terms 1 − cos, `cl_weight`, unsquared norms of all users and items over I. `paper`: as printed."""
    features: Features = "trained"
    """`trained`: the raw feature tables are parameters, as in the published code. `frozen`: given, as in the text."""
    reconstruction: bool = True
    """Whether L_rec is a term of the objective: with one of the three off, one sees what it is good for."""
    alignment: bool = True
    """Whether L_align is."""
    masking: bool = True
    """Whether L_mask is."""
    modalities: str = "all"
    """Those that take part: `all`, `none`, or names with + between, such as `visual+text`."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "objective": Variant(
            text="L_rec + L_align + L_mask + λ(‖h_u‖² + ‖h_i‖²), terms −cos (paper)",
            code="terms 1 − cos, L_align and L_mask times 2, λ(‖H_u‖F + ‖H_i‖F)/I over all nodes (published)",
            where="bm3.model.BM3.loss",
        ),
        "features": Variant(
            text="raw features are given (frozen)",
            code="raw feature tables are trained, at four times their memory (trained)",
            where="bm3.features.FeatureTable",
        ),
    }

    def __post_init__(self) -> None:
        for field, ok, needed in (
            ("embedding_size", self.embedding_size >= 1, "at least 1"),
            ("n_layers", self.n_layers >= 0, "at least 0"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("reg_weight", 0 <= self.reg_weight < math.inf, "finite and not negative"),
            ("cl_weight", 0 <= self.cl_weight < math.inf, "finite and not negative"),
            ("objective", self.objective in get_args(Objective), "published or paper"),
            ("features", self.features in get_args(Features), "trained or frozen"),
        ):
            if not ok:
                raise ConfigError(f"BM3: {field} is {getattr(self, field)!r}, it must be {needed}")
        if not (self.reconstruction or self.reads_features):
            raise ConfigError(
                "BM3: the regulariser is the only term left; switch on reconstruction, or alignment or masking with at "
                "least one modality"
            )

    @property
    def reads_features(self) -> bool:
        """Whether a term is left that reads item features."""
        return (self.alignment or self.masking) and self.modalities != "none"


class BM3(nn.Module):
    """The BM3 recommender.

    Ten lines train it, without anything but this package:

    >>> import numpy as np, torch
    >>> from bm3 import BM3, BM3Config, Batch, Data
    >>> draw, train = np.random.default_rng(0), np.array([(u, i) for u in range(20) for i in range(u % 2, 10, 2)])
    >>> features = {"visual": draw.normal(size=(10, 8)), "text": draw.normal(size=(10, 4))}
    >>> model = BM3(Data(20, 10, train, features), BM3Config(dropout=0.3), torch.Generator().manual_seed(0))
    >>> optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    >>> for _ in range(50):
    ...     optimiser.zero_grad()
    ...     model.loss(Batch(*torch.from_numpy(train).T)).total.backward()
    ...     optimiser.step()
    >>> users, items = model.embed()  # score of user u for item i: users[u] @ items[i]
    """

    Config = BM3Config
    numerics_version: ClassVar[int] = 1
    uses_negatives: ClassVar[bool] = False
    reads_feature_rows: ClassVar[bool] = True
    """Features are read by `FeatureTable.project` alone, a batch's rows at a time."""

    def __init__(self, data: TrainingData, config: BM3Config, generator: torch.Generator) -> None:
        """Parameters are initialised from `generator`, which also draws the dropout views until `start_epoch`.

        Raises DataError: a modality that is not there, no interactions, or features that are not one finite row per
        item.
        """
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.modalities = _chosen(config, tuple(data.features))
        d = config.embedding_size
        graph = symmetric_normalised(bipartite_adjacency(data.train, data.n_users, data.n_items))
        self.propagate = SparseProduct(graph, symmetric=True)
        self.user_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_users, d), generator=generator))
        self.item_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_items, d), generator=generator))
        self.predictor = _linear(d, d, generator)
        # Lists, not dictionaries keyed by modality: torch forbids some names as keys, a data set does not.
        self.features = nn.ModuleList(
            FeatureTable(name, data.features[name], data.n_items, trained=config.features == "trained")
            for name in self.modalities
        )
        self.projections = nn.ModuleList(
            _linear(data.features[name].shape[1], d, generator) for name in self.modalities
        )
        self._generator = generator

    def start_epoch(self, generator: torch.Generator) -> None:
        """From now on draw the dropout views from `generator`."""
        self._generator = generator

    def encode(self) -> tuple[Tensor, Tensor]:
        """(H_u [U, d], H_i [I, d]): mean readout, and a residual for the items."""
        h0 = torch.cat([self.user_embedding, self.item_embedding])  # [U+I, d]
        h_users, h_items = mean_readout(self.propagate, h0, self.config.n_layers).split([self.n_users, self.n_items])
        return h_users, h_items + self.item_embedding

    def project(self, modality: int, items: Tensor) -> Tensor:
        """h_m = e_m W_m + b_m of the given items [n] alone: [n, d]."""
        features, linear = self._modality(modality)
        return features.project(items, linear.weight) + linear.bias

    def fetch(self, batch: Batch) -> None:
        """Begin to read the features of the batch that `loss` is given next, if they are far away."""
        items, _ = distinct(batch.items)
        for modality in range(len(self.modalities)):
            self._modality(modality)[0].fetch(items)

    def loss(self, batch: Batch, keep: Mapping[str, Tensor] | None = None) -> Loss:
        """The objective on a batch, with those parts of `reconstruction`, `alignment`, `masked`, `regulariser` that are
        switched on. Views that none of them reads are neither made nor drawn.

        `keep` replaces the random dropout by given masks, to replay a recorded step: boolean, True survives; `user`
        [U, d], `item` [I, d] and one [I, d] per modality name.
        """
        config, n_modalities = self.config, len(self.modalities)
        aligned, masked = config.alignment and n_modalities > 0, config.masking and n_modalities > 0
        published = config.objective == "published"
        # An item's latents and views depend on the item alone, so distinct ones suffice; rows are repeated afterwards.
        users, user_row = distinct(batch.users)  # [n_u], [B]
        items, item_row = distinct(batch.items)  # [n_i], [B]
        h_users, h_items = self.encode()
        h_u, h_i = functional.embedding(users, h_users), functional.embedding(items, h_items)  # [n_u, d], [n_i, d]
        h_modal = [self.project(m, items) for m in range(n_modalities)]  # M x [n_i, d]

        if config.reconstruction:
            target_u = self._target("user", h_u, users, keep)
        if config.reconstruction or aligned:
            target_i = self._target("item", h_i, items, keep)
        if masked:
            target_modal = [self._target(m, h, items, keep) for m, h in zip(self.modalities, h_modal, strict=True)]
        if config.reconstruction:
            online_u, online_i = self.predictor(h_u), self.predictor(h_i)
        online_modal = [self.predictor(h) for h in h_modal]

        def per_pair(rows: Tensor, of: Tensor) -> Tensor:
            return functional.embedding(of, rows)  # [B, d]

        parts: dict[str, Tensor] = {}
        if config.reconstruction:
            term = reconstruction_loss(
                per_pair(online_u, user_row),
                per_pair(online_i, item_row),
                per_pair(target_u, user_row),
                per_pair(target_i, item_row),
            ).mean()
            parts["reconstruction"] = 2 + term if published else term
        if aligned:
            term = alignment_loss(online_modal, target_i)[item_row].mean()
            parts["alignment"] = config.cl_weight * (n_modalities + term) if published else term
        if masked:
            term = masked_loss(online_modal, target_modal)[item_row].mean()
            parts["masked"] = config.cl_weight * (n_modalities + term) if published else term
        if published:
            regulariser = published_regulariser(h_users, h_items)
        else:
            regulariser = (squared_norm(h_u)[user_row] + squared_norm(h_i)[item_row]).mean()
        parts["regulariser"] = config.reg_weight * regulariser
        return Loss(functools.reduce(torch.add, parts.values()), parts)

    def embed(self) -> tuple[Tensor, Tensor]:
        """(h̃_u [U, d], h̃_i [I, d]), predictor applied, nothing dropped; the score is their dot product."""
        h_users, h_items = self.encode()
        return self.predictor(h_users), self.predictor(h_items)

    def _modality(self, modality: int) -> tuple[FeatureTable, nn.Linear]:
        return cast(FeatureTable, self.features[modality]), cast(nn.Linear, self.projections[modality])

    def _target(self, view: str, h: Tensor, rows: Tensor, keep: Mapping[str, Tensor] | None) -> Tensor:
        """sg ĥ = dropout_p(h), survivors scaled by 1/(1−p), for h [n, d] of the given table rows [n]."""
        p, h = self.config.dropout, h.detach()
        if keep is not None:
            kept = keep[view][rows]
        elif p == 0:
            return h
        else:
            merged = merges(rows)
            n = len(rows) if merged else (self.n_users if view == "user" else self.n_items)
            chances = torch.rand(n, h.shape[1], generator=self._generator, device=self._generator.device)
            kept = (chances if merged else chances[rows]) >= p  # a row that is repeated is dropped alike
        return h * kept.to(h) / (1 - p)


def _chosen(config: BM3Config, there: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities that take part, in the order of the data set's, `there`. Raises DataError for one it lacks."""
    if not config.reads_features:
        return ()
    wanted = config.modalities.split("+") if config.modalities != "all" else there
    if not wanted:
        raise DataError(
            "BM3 needs at least one modality of item features and the data set has none; modalities=none does without"
        )
    for name in wanted:
        if name not in there:
            has = ", ".join(map(repr, there)) or "none at all"
            raise DataError(f"BM3: modalities is {config.modalities!r}: no {name!r} in the data set, which has {has}")
    return tuple(name for name in there if name in wanted)


def _linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """Linear map with Xavier-normal weight [d_out, d_in] and torch's default bias, uniform in ±1/√d_in."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, d_in, d_out)
    nn.init.xavier_normal_(layer.weight, generator=generator)
    nn.init.uniform_(layer.bias, -(d_in**-0.5), d_in**-0.5, generator=generator)
    return layer
