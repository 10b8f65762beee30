"""Drafts from a checkpoint's multi-token-prediction layers, as DeepSeek-V3 deploys them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seamount import kernels
from seamount.engine.request import Sequence
from seamount.engine.sampler import Row
from seamount.models import Model
from seamount.models.parts.batch import Batch

MOST_BEHIND = 16
"""Rows that MTP layers may be behind a sequence that gets no drafts: they are cheaper computed together."""


class _Behind(NamedTuple):
    """Hidden states of the main model, from a position on, whose MTP rows are to be written (again)."""

    first: int
    hidden_TD: Tensor

    @property
    def end(self) -> int:
        return self.first + len(self.hidden_TD)


class MTPDrafts:
    """Layer k makes draft k; behind the last layer's own, it goes on from its own hidden state, one position on.

    A draft is what the sampler would draw from the layer's logits with the noise of the draft's place: so it agrees
    with the token that the model draws there more often than the likeliest token would.

    Layer k's row at position i depends on the tokens up to i + k, and so on tokens behind the page that holds it. Three
    kinds of rows are therefore not what they would be without a cache: those of guessed tokens, until the true ones are
    known and they are written again; the last k of a page that was reused before other tokens; and those behind which
    an answer ended, while they were behind. Drafts may be worse for them. No row of the main layers, and so no token,
    depends on any.

    Cost: per call and layer one pass over what is behind of all sequences; per further draft one over a token of each.
    """

    needs_hidden = True

    def __init__(self, model: Model) -> None:
        assert model.tokenizer is not None, "an engine's model has a tokenizer"
        self._model, self._vocab_size = model, model.tokenizer.vocab_size
        self._depths = len(model.mtp)
        self._behind: WeakKeyDictionary[Sequence, _Behind] = WeakKeyDictionary()

    def nbytes(self, step_tokens: int, most_sequences: int) -> int:
        """About the most memory that is taken, beside cached rows, for steps of so many tokens."""
        model, behind = self._model, most_sequences * (MOST_BEHIND + self._depths)
        kept = (behind + step_tokens) * model.spec.hidden_size * model.dtype.itemsize
        return kept + model.mtp_bytes(max(step_tokens, behind), most_sequences)

    @torch.inference_mode()
    def read(self, sequence: Sequence, first: int, hidden_TD: Tensor) -> None:
        """Keep the hidden states; where they have become many, write the layers' rows of all whose tokens are known."""
        behind = self._behind.get(sequence)
        if behind is not None and behind.end == first:
            first, hidden_TD = behind.first, torch.cat((behind.hidden_TD, hidden_TD))
        ready = len(hidden_TD) - self._depths
        if ready > MOST_BEHIND:
            ready_TD = hidden_TD[:ready]
            for depth in range(1, self._depths + 1):
                ready_TD = self._run(depth, {sequence: _Behind(first, ready_TD)}, {sequence: []})
            first, hidden_TD = first + ready, hidden_TD[ready:]
        self._behind[sequence] = _Behind(first, hidden_TD.clone())

    def fork(self, sequence: Sequence, twin: Sequence) -> None:
        """Another sequence has the same rows."""
        self._behind[twin] = self._behind[sequence]

    @torch.inference_mode()
    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """The drafts of all sequences, place after place."""
        behind = {sequence: self._behind[sequence] for sequence in counts if self._is_ready(sequence)}
        drafts: dict[Sequence, list[int]] = {sequence: [] for sequence in behind}
        # Every layer runs, also where fewer drafts are wanted: so none of its rows is missing.
        for place in range(1, max([self._depths, *(counts[sequence] for sequence in behind)]) + 1):
            if place > self._depths:
                behind = {sequence: one for sequence, one in behind.items() if counts[sequence] >= place}
            if not behind:
                break
            hidden_TD = self._run(min(place, self._depths), behind, drafts)
            parts = hidden_TD.split([len(one.hidden_TD) for one in behind.values()])
            self._draw(torch.stack([part[-1] for part in parts]), list(behind), drafts)
            for (sequence, one), part_TD in zip(list(behind.items()), parts, strict=True):
                is_last = place >= self._depths
                behind[sequence] = _Behind(one.end, part_TD[-1:]) if is_last else _Behind(one.first, part_TD)
        for sequence in drafts:
            self._keep(sequence)
        return {sequence: drafted[: counts[sequence]] for sequence, drafted in drafts.items()}

    def _is_ready(self, sequence: Sequence) -> bool:
        behind = self._behind.get(sequence)
        assert sequence.rows is not None, "who is to draft is running"
        return behind is not None and len(behind.hidden_TD) > 0 and behind.end == sequence.rows.cache.length

    def _keep(self, sequence: Sequence) -> None:
        """Keep the last hidden states alone: the layers behind the first read them again with the true tokens."""
        behind, kept = self._behind[sequence], self._depths - 1
        first = max(behind.first, behind.end - kept)
        self._behind[sequence] = _Behind(first, behind.hidden_TD[first - behind.first :].clone())

    def _run(self, depth: int, behind: Mapping[Sequence, _Behind], drafts: Mapping[Sequence, list[int]]) -> Tensor:
        """One layer over the positions of all sequences, with their tokens and then their drafts: (T, D)."""
        tokens: list[int] = []
        caches = []
        for sequence, one in behind.items():
            # From the position `depth` on: of several layers the later ones reach into the drafts.
            known = sequence.tokens[one.first + depth : one.end + depth] + drafts[sequence]
            tokens += known[len(known) - len(one.hidden_TD) :]
            assert sequence.rows is not None, "who is to draft is running"
            caches.append(sequence.rows.cache.at(one.first))
        device = self._model.device
        batch = Batch.of([len(one.hidden_TD) for one in behind.values()], caches, device)
        hidden_TD = torch.cat([one.hidden_TD for one in behind.values()])
        return self._model.mtp_hidden(depth, hidden_TD, torch.tensor(tokens, device=device), batch)

    def _draw(self, hidden_BD: Tensor, sequences: list[Sequence], drafts: dict[Sequence, list[int]]) -> None:
        """One more draft for each sequence."""
        logits_BW = self._model.head(hidden_BD)[:, : self._vocab_size].cpu()
        draws = []
        for logits_W, sequence in zip(logits_BW.numpy(), sequences, strict=True):
            done = drafts[sequence]
            draws.append(sequence.state.draw(logits_W, Row(sequence.state, len(sequence.tokens) + len(done), done)))
        for sequence, token in zip(sequences, kernels.draw_tokens(logits_BW, draws), strict=True):
            drafts[sequence].append(max(token, 0))  # logits that allow no token make a guess like any other
