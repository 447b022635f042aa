"""Blocks of a pre-norm transformer over left-padded steps, causal or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.models.dropout import Dropout


class Block(nn.Module):
    """Attention and a feed-forward network, each with a layer norm before it and a residual connection around it.

    ``feed_forward`` is the inner width as a multiple of ``dim``. If ``reach`` is not 0, each head learns a bias for each
    distance between steps (Raffel et al., T5, 2020, without their buckets); distances from ``reach`` on share the last bias.
    """

    def __init__(self, dim: int, heads: int, dropout: float, feed_forward: int = 4, reach: int = 0) -> None:
        super().__init__()
        self.distance = nn.Parameter(torch.zeros(heads, reach)) if reach else None
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.merge = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        inner = feed_forward * dim
        self.feed = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), Dropout(dropout), nn.Linear(inner, dim))
        self.drop = Dropout(dropout)

    def forward(self, steps: Tensor, allowed: Tensor) -> Tensor:
        """``steps`` ``[batch, seq, dim]``, ``allowed`` bool ``[batch, 1, seq, seq]``: which step may attend to which."""
        query, key, value = self._heads(self.project(self.before_attention(steps)))
        return self._attend(steps, query, key, value, self._mask(allowed))

    def newest(self, steps: Tensor, allowed: Tensor) -> Tensor:
        """The newest state alone, ``[batch, 1, dim]``, for a sixth of the work: the other steps serve only as keys and values."""
        dim = steps.shape[2]
        weight, bias = self.project.weight, self.project.bias
        normed = self.before_attention(steps)
        (query,) = self._heads(F.linear(normed[:, -1:], weight[:dim], bias[:dim]))
        key, value = self._heads(F.linear(normed, weight[dim:], bias[dim:]))
        return self._attend(steps[:, -1:], query, key, value, self._mask(allowed)[:, :, -1:])

    def _mask(self, allowed: Tensor) -> Tensor:
        """Which step may attend to which, or with ``reach`` the bias of each pair: ``[batch, 1 or heads, seq, seq]``."""
        if self.distance is None:
            return allowed
        place = torch.arange(allowed.shape[-1], device=allowed.device)
        distances = (place.unsqueeze(1) - place).clamp(0, self.distance.shape[1] - 1)
        return self.distance[:, distances].masked_fill(~allowed, -torch.inf)

    def _heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """``[batch, seq, n · dim]`` as ``n`` tensors ``[batch, heads, seq, dim / heads]``."""
        size = self.project.in_features // self.heads
        return projected.unflatten(2, (-1, self.heads, size)).permute(2, 0, 3, 1, 4).unbind()

    def _attend(self, steps: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """The ``steps`` of the queries, ``[batch, queries, dim]``, after attention and feed-forward."""
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        steps = steps + self.drop(self.merge(attended.transpose(1, 2).flatten(2)))  # [batch, queries, dim]
        return steps + self.drop(self.feed(self.before_feed(steps)))


def allowed_pairs(real: Tensor, causal: bool) -> Tensor:
    """Bool ``[batch, 1, seq, seq]``: a step attends to real steps (if causal, to no later ones) and to itself."""
    seq = real.shape[1]
    same = torch.eye(seq, dtype=torch.bool, device=real.device)
    allowed = real.unsqueeze(1).expand(-1, seq, -1)
    if causal:
        allowed = allowed & torch.ones(seq, seq, dtype=torch.bool, device=real.device).tril()
    return (allowed | same).unsqueeze(1)
