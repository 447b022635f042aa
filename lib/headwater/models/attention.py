"""A pre-norm transformer stack over left-padded steps, causal or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and a feed-forward of four times the width, each behind a norm and around a shortcut."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.merge = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, steps: Tensor, allowed: Tensor) -> Tensor:
        """``steps`` ``[batch, seq, dim]``, ``allowed`` bool ``[batch, 1, seq, seq]``: who may look at whom."""
        batch, seq, dim = steps.shape
        projected = self.project(self.before_attention(steps)).view(batch, seq, 3, self.heads, dim // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # each [batch, heads, seq, dim / heads]
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        steps = steps + self.drop(self.merge(seen.transpose(1, 2).reshape(batch, seq, dim)))
        return steps + self.drop(self.feed(self.before_feed(steps)))


def allowed_pairs(real: Tensor, causal: bool) -> Tensor:
    """Bool ``[batch, 1, seq, seq]``: a step looks at real steps (not later ones if causal); padding at itself."""
    seq = real.shape[1]
    same = torch.eye(seq, dtype=torch.bool, device=real.device)
    allowed = real.unsqueeze(1).expand(-1, seq, -1)
    if causal:
        allowed = allowed & torch.ones(seq, seq, dtype=torch.bool, device=real.device).tril()
    return (allowed | same).unsqueeze(1)
