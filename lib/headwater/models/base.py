"""The base of all sequence models: embeddings of events, the item matrix, the next-item loss.

Histories are int64 ``[batch, seq]``, left-padded with 0, newest last; a second tensor of the same shape holds the context of
each event (``models.context``). The input of a step is the sum of its item's vector times ``input_scale``, an embedding of each
part of its context and, if the encoder has absolute positions, a position embedding. Positions are counted back from the newest
event, so they do not depend on padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headwater.models import context as event_context
from headwater.models.dropout import Dropout
from headwater.models.features import ItemFeatures
from headwater.models.losses import Objective
from headwater.models.spec import ModelSpec

FULL_SOFTMAX = Objective()


class SequenceModel(nn.Module):
    """Base class of the encoders. A subclass defines ``transform`` and, if its objective differs, ``loss``."""

    extra_tokens = 0
    """The number of item indices above ``n_items`` for the encoder's own tokens (a mask)."""
    absolute = True
    """Whether the input of a step includes a position embedding."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        rows = spec.n_items + 1 + self.extra_tokens
        self.item = nn.Embedding(rows, spec.dim, padding_idx=0)
        self.features = (
            ItemFeatures(rows, spec.feature_buckets, spec.feature_cells, spec.dim) if spec.feature_buckets else None
        )
        parts = {name: nn.Embedding(event_context.SIZES[name], spec.dim, padding_idx=0) for name in spec.context}
        for name, part in parts.items():
            self.add_module(name, part)
        self.position = nn.Embedding(spec.max_length + 1, spec.dim) if self.absolute else None
        self.drop = Dropout(spec.dropout if spec.input_dropout is None else spec.input_dropout)
        self.norm = nn.LayerNorm(spec.dim)
        for table in (self.item, *parts.values(), self.position):
            if table is not None:
                nn.init.normal_(table.weight, std=spec.dim**-0.5)
        with torch.no_grad():
            for padded in (self.item, *parts.values()):
                padded.weight[0].zero_()

    def transform(self, steps: Tensor, real: Tensor) -> Tensor:
        """Steps ``[batch, seq, dim]`` and a bool mask ``[batch, seq]``, False for padding → states ``[batch, seq, dim]``."""
        raise AssertionError("a subclass must define transform")

    def newest(self, steps: Tensor, real: Tensor) -> Tensor:
        """The last state of ``transform``, ``[batch, dim]``; an encoder that can skip the other states overrides this."""
        return self.transform(steps, real)[:, -1]

    def encode(self, items: Tensor, context: Tensor) -> Tensor:
        """States ``[batch, seq, dim]``; the state at a step depends on that step and, in a causal encoder, on no later one."""
        return self.norm(self.transform(*self._steps(items, context)))

    def _steps(self, items: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The arguments of ``transform``."""
        real = items > 0
        steps = self.item_rows(items) * self.spec.input_scale  # [batch, seq, dim]
        for name in self.spec.context:
            steps = steps + self.get_submodule(name)(event_context.part(context, name))
        if self.position is not None:
            steps = steps + self.position(torch.arange(items.shape[1] - 1, -1, -1, device=items.device))
        return self.drop(steps) * real.unsqueeze(-1), real

    def user_vectors(self, items: Tensor, context: Tensor) -> Tensor:
        """The state after the newest event, ``[batch, dim]``; its product with the item matrix scores the next item. Of a longer
        history, only the last ``spec.max_length`` events are read."""
        return self.norm(self.newest(*self._steps(*self._read(items, context))))

    def _read(self, items: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a history, ``[batch, seq]``, that the encoder reads; an encoder that adds a token of its own overrides
        this."""
        return items[:, -self.spec.max_length :], context[:, -self.spec.max_length :]

    def item_matrix(self) -> Tensor:
        """Item vectors ``[n_items + 1, dim]``; row 0 is padding."""
        own = self.item.weight[: self.spec.n_items + 1]
        return own if self.features is None else own + self.features(torch.arange(len(own), device=own.device))

    def item_rows(self, items: Tensor) -> Tensor:
        """The vectors of items, int64 of any shape → the same shape plus ``dim``; features are looked up once per item."""
        if self.features is None:
            return self.item(items)
        different, place = items.unique(return_inverse=True)
        return (self.item(different) + self.features(different))[place]

    def loss(
        self, items: Tensor, context: Tensor, weights: Tensor | None = None, objective: Objective = FULL_SOFTMAX
    ) -> tuple[Tensor, Tensor]:
        """Next-item loss of sequences ``[batch, seq + 1]``: each step predicts the item of the next one.

        ``weights`` (same shape) are the weights of the steps as targets. Returns the weighted sum and the sum of weights, so
        that the results of ranks and batches can be added exactly.
        """
        states = self.encode(items[:, :-1], context[:, :-1])  # [batch, seq, dim]
        is_target = (items[:, 1:] > 0) & (items[:, :-1] > 0)
        weight = (torch.ones_like(items, dtype=states.dtype) if weights is None else weights)[:, 1:]
        return objective(states[is_target], items[:, 1:][is_target], weight[is_target], self)

    # DDP calls forward, and training needs the loss.
    forward = loss
