"""One transformer layer, and the multi-token-prediction layer around one."""

import torch
from torch import Tensor, nn

from seamount.models.parts.batch import Batch
from seamount.models.parts.feed_forward import feed_forward
from seamount.models.parts.gqa import GroupedQueryAttention
from seamount.models.parts.linear import Linear, RMSNorm
from seamount.models.parts.mla import LatentAttention
from seamount.models.spec import LayerSpec, MLASpec, ModelSpec


class Layer(nn.Module):
    """Attention and feed-forward, each on a normed copy of the residual stream."""

    def __init__(self, spec: LayerSpec, model: ModelSpec, layer: int) -> None:
        super().__init__()
        attention: type[nn.Module] = LatentAttention if isinstance(spec.attention, MLASpec) else GroupedQueryAttention
        self.input_layernorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.self_attn = attention(spec.attention, model.hidden_size, model.rms_norm_eps, layer)
        self.post_attention_layernorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.mlp = feed_forward(spec.feed_forward, model.hidden_size)

    def forward(self, x_TD: Tensor, batch: Batch) -> Tensor:
        """(T, D) -> (T, D)."""
        x_TD = x_TD + self.self_attn(self.input_layernorm(x_TD), batch)
        return x_TD + self.mlp(self.post_attention_layernorm(x_TD))


class MTPLayer(nn.Module):
    """One more layer that predicts one token further ahead, from a hidden state and the next token's embedding.

    Embedding and output head are the main model's.
    Source: DeepSeek-V3, arXiv 2412.19437, section 2.2; the checkpoint's `eh_proj` takes the embedding first.
    """

    def __init__(self, spec: LayerSpec, model: ModelSpec, layer: int) -> None:
        super().__init__()
        self.enorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.hnorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.eh_proj = Linear(2 * model.hidden_size, model.hidden_size)
        self.block = Layer(spec, model, layer)
        self.norm = RMSNorm(model.hidden_size, model.rms_norm_eps)

    def forward(self, hidden_TD: Tensor, next_embedding_TD: Tensor, batch: Batch) -> Tensor:
        """The normed hidden state of one depth, from the previous depth's and the next token's embedding: (T, D)."""
        x_TD = self.eh_proj(torch.cat((self.enorm(next_embedding_TD), self.hnorm(hidden_TD)), dim=-1))
        return self.norm(self.block(x_TD, batch))
