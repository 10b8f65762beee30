"""The one model: embedding, layers, norm, head, and the multi-token-prediction layers behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seamount import kernels
from seamount.errors import ContextOverflow, RequestError
from seamount.models.graphs import DecodeGraphs
from seamount.models.parts.batch import Batch
from seamount.models.parts.layer import Layer, MTPLayer
from seamount.models.parts.linear import Embedding, Linear, RMSNorm
from seamount.models.parts.pages import Cache, PageLayout, new_caches
from seamount.models.program import Program, program_of
from seamount.models.spec import LayerSpec, MLASpec, ModelSpec, MoESpec
from seamount.tokenizer import Tokenizer


class Model(nn.Module):
    """A decoder of any family: `spec` says which. Made by `seamount.load`; trained, served and saved as it is.

    `config` is the checkpoint's config.json; `tokenizer` is None where the checkpoint has none.
    """

    def __init__(self, spec: ModelSpec, config: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.spec, self.config, self.tokenizer = spec, dict(config), tokenizer
        self.embed_tokens = Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Layer(layer, spec, number) for number, layer in enumerate(spec.layers))
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.lm_head = None if spec.tie_word_embeddings else Linear(spec.hidden_size, spec.vocab_size)
        mtp_layers = enumerate(spec.mtp_layers, start=len(spec.layers))  # their rows stand behind the others' in a page
        self.mtp = nn.ModuleList(MTPLayer(layer, spec, number) for number, layer in mtp_layers)
        self._program: Program | None = None
        self._graphs = DecodeGraphs(self)
        self._has_chosen = False  # whether `_program` was looked for: weights may be packed after this constructor

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_tokens.weight.device

    def hidden(self, tokens_T: Tensor, batch: Batch) -> Tensor:
        """The last layer's hidden states after the final norm: (T) -> (T, D). The batch's caches grow by its rows."""
        x_TD = self.embed_tokens(tokens_T)
        for layer in self.layers:
            x_TD = layer(x_TD, batch)
        batch.advance()
        return self.norm(x_TD)

    def head(self, hidden_TD: Tensor) -> Tensor:
        """Logits of hidden states: (T, D) -> (T, W), float32."""
        head = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return kernels.linear(hidden_TD, head).float()

    def logits_at(self, tokens_T: Tensor, batch: Batch, wanted: Sequence[int]) -> Tensor:
        """Logits after some of a flat batch's tokens: their places in it, from 0 -> (wanted, W), float32. Caches grow.

        A packed model runs here as one compiled step (see program.py), any other through its modules; on CUDA, steps of
        single tokens are captured as graphs (see graphs.py).
        Errors: RequestError for a place outside the batch; ContextOverflow where a cache is full.
        """
        _require_places(wanted, len(tokens_T))
        if (program := self._chosen()) is not None:
            with torch.no_grad():
                return program.logits(tokens_T, batch, wanted)
        if self.device.type == "cuda" and not torch.is_grad_enabled() and self._graphs.suits(batch, wanted):
            return self._graphs.logits(tokens_T, batch)
        return self.head(self.hidden(tokens_T, batch)[list(wanted)])

    def logits_and_hidden(self, tokens_T: Tensor, batch: Batch, wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`logits_at` with the same bits, and all tokens' hidden states as MTP layers read them: (T, D).

        Errors: as `logits_at`.
        """
        _require_places(wanted, len(tokens_T))
        if (program := self._chosen()) is not None:
            with torch.no_grad():
                logits_nW, x_TD = program.logits_and_stream(tokens_T, batch, wanted)
                return logits_nW, self.norm(x_TD.to(self.dtype))
        hidden_TD = self.hidden(tokens_T, batch)
        return self.head(hidden_TD[list(wanted)]), hidden_TD

    def step_bytes(self, num_tokens: int, num_logits: int) -> int:
        """The most memory that `logits_at` takes for so many tokens, beside the weights and the cached rows.

        Units: bytes; an upper bound for a compiled step, an estimate for modules.
        """
        # The logits themselves, a selection of them, and their log-softmax.
        logits = 3 * num_logits * self.spec.vocab_size * 4
        if (program := self._chosen()) is not None:
            return logits + program.reserve(num_tokens, self.spec.context_length)
        return logits + self._modules_bytes(num_tokens, self.spec.layers)

    def mtp_bytes(self, num_tokens: int, num_logits: int) -> int:
        """About the most memory that `mtp_hidden` takes for so many tokens, and `head` for so many logits."""
        return self._modules_bytes(num_tokens, self.spec.mtp_layers) + num_logits * self.spec.vocab_size * 8

    def _modules_bytes(self, num_tokens: int, layers: Sequence[LayerSpec]) -> int:
        return 4 * num_tokens * (4 * self.spec.hidden_size + max(map(_widest, layers)))

    def weights_changed(self) -> None:
        """To be called after weights were changed: what was made of them, a compiled step or graphs, is made anew."""
        self._program, self._has_chosen, self._graphs = None, False, DecodeGraphs(self)

    def _chosen(self) -> Program | None:
        if not self._has_chosen:
            self._program, self._has_chosen = program_of(self), True
        return self._program

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Next-token logits of whole sequences: (B, T) int64 -> (B, T, W) float32.

        Errors: RequestError for another rank, no token, or an id outside the vocabulary.
        """
        B, T = self._check(tokens_BT)
        batch = Batch.fresh([T] * B, tokens_BT.device)
        return self.logits_at(tokens_BT.flatten(), batch, range(B * T)).unflatten(0, (B, T))

    def mtp_logits(self, tokens_BT: Tensor) -> list[Tensor]:
        """What each MTP layer predicts: entry k - 1 is (B, T - k, W), at position i of the token i + k + 1.

        Errors: as `logits`; RequestError if there are not more tokens than MTP layers.
        """
        B, T = self._check(tokens_BT)
        if len(self.mtp) >= T:
            raise RequestError(f"{len(self.mtp)} MTP layers need more than {len(self.mtp)} tokens, and {T} were given")
        batch = Batch.fresh([T] * B, tokens_BT.device)
        hidden_BTD = self.hidden(tokens_BT.flatten(), batch).unflatten(0, (B, T))
        predictions = []
        for depth in range(1, len(self.mtp) + 1):
            ahead = Batch.fresh([T - depth] * B, tokens_BT.device)
            hidden_TD = self.mtp_hidden(depth, hidden_BTD[:, :-1].flatten(0, 1), tokens_BT[:, depth:].flatten(), ahead)
            hidden_BTD = hidden_TD.unflatten(0, (B, T - depth))
            predictions.append(self.head(hidden_TD).unflatten(0, (B, T - depth)))
        return predictions

    def mtp_hidden(self, depth: int, hidden_TD: Tensor, tokens_T: Tensor, batch: Batch) -> Tensor:
        """One MTP layer, from 1: hidden states of the depth before, and the token `depth` places on -> (T, D).

        `head` makes logits of them. The layer's rows are written, and count as cached only with the main layers' own.
        A packed model's MTP layers run operation by operation.
        """
        return self.mtp[depth - 1](hidden_TD, self.embed_tokens(tokens_T), batch)

    @property
    def page_layout(self) -> PageLayout:
        """What a page of cached rows holds."""
        return self.layout()

    @property
    def compressed_layout(self) -> PageLayout:
        """The same with compressed rows: int8, but for MLA's rotated key.

        Errors: ConfigError for a latent or a head of a width that 16 does not divide.
        """
        return self.layout(is_compressed=True)

    def layout(self, *, is_compressed: bool = False, has_mtp: bool = False) -> PageLayout:
        """The same, and where asked for with the rows of the MTP layers behind the others.

        Errors: as for compressed_layout.
        """
        layers = self.spec.layers + (self.spec.mtp_layers if has_mtp else ())
        formats = [layer.attention.row_format for layer in layers] if is_compressed else ()
        return PageLayout([layer.attention.cache_dim for layer in layers], self.dtype, formats)

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache for one sequence of at most `capacity` tokens.

        Errors: ContextOverflow beyond the model's context.
        """
        if capacity > self.spec.context_length:
            raise ContextOverflow(
                f"{capacity} tokens were asked for, and the model's context holds {self.spec.context_length}"
            )
        return new_caches(self.page_layout, [capacity], self.device)[0]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int], cache: Cache) -> Tensor:
        """Run the next tokens of a cached sequence; the logits after the last of them: (W), float32."""
        self._check_ids(tokens)
        tokens_T = torch.tensor(tokens, dtype=torch.int64, device=self.device)
        batch = Batch.following(len(tokens), cache, self.device)
        return self.logits_at(tokens_T, batch, [len(tokens) - 1])[0]

    def generate(self, prompt: str | Sequence[int], max_tokens: int = 64) -> str | list[int]:
        """The greedy continuation of a text (as text) or of token ids (as ids); ends early where the model ends.

        Errors: ContextOverflow if prompt and max_tokens do not fit; RequestError for text without a tokenizer.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise RequestError("this checkpoint has no tokenizer: give token ids instead of text")
            return self.tokenizer.decode(self._continue(self.tokenizer.encode(prompt), max_tokens))
        return self._continue(list(prompt), max_tokens)

    def _continue(self, tokens: list[int], max_tokens: int) -> list[int]:
        cache = self.new_cache(len(tokens) + max_tokens)
        ends = self.tokenizer.eos_token_ids if self.tokenizer else ()
        answer: list[int] = []
        step = tokens
        for _ in range(max_tokens):
            token = int(self.step(step, cache).argmax())
            if token in ends:
                break
            answer.append(token)
            step = [token]
        return answer

    def _check(self, tokens_BT: Tensor) -> tuple[int, int]:
        if tokens_BT.ndim != 2:
            raise RequestError(f"tokens must have the shape (B, T), not {tuple(tokens_BT.shape)}")
        self._check_ids(tokens_BT.flatten().tolist())
        B, T = tokens_BT.shape
        return B, T

    def _check_ids(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise RequestError("there must be at least one token")
        low, high = min(tokens), max(tokens)
        if low < 0 or high >= self.spec.vocab_size:
            raise RequestError(f"token ids run from {low} to {high}; this model has 0 to {self.spec.vocab_size - 1}")


def _require_places(wanted: Sequence[int], count: int) -> None:
    if not all(0 <= place < count for place in wanted):
        raise RequestError(f"logits were asked for at {list(wanted)}, and the batch has {count} tokens")


def _widest(layer: LayerSpec) -> int:
    """About how many numbers of one token stand in memory at once within a layer."""
    attention, feed = layer.attention, layer.feed_forward
    if isinstance(attention, MLASpec):
        of_attention = attention.num_attention_heads * (3 * attention.cache_dim + attention.v_head_dim)
    else:
        of_attention = 4 * (attention.num_attention_heads * attention.head_dim + attention.cache_dim)
    if isinstance(feed, MoESpec):
        return max(of_attention, 4 * feed.moe_intermediate_size * (feed.num_experts_per_tok + feed.n_shared_experts))
    return max(of_attention, 4 * feed.intermediate_size)
