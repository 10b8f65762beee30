"""Answers prompts with a model: many at once, from any thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence as Tokens
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from seamount.engine.config import EngineConfig
from seamount.engine.disk_tier import DiskTier, root_key
from seamount.engine.drafts import Drafter, DraftSource
from seamount.engine.generation import Generation
from seamount.engine.grammar_compiler import GrammarCompiler
from seamount.engine.metrics import Metrics
from seamount.engine.mtp_drafts import MTPDrafts
from seamount.engine.ngram_drafts import NGrams
from seamount.engine.params import SamplingParams
from seamount.engine.prefix_cache import PrefixCache
from seamount.engine.request import Request, Sequence, Sink
from seamount.engine.results import Chunk, Completion
from seamount.engine.scheduler import Scheduler, most_logits
from seamount.engine.step_lock import StepLock
from seamount.engine.stepping import LanguageModel, Stepper
from seamount.errors import ConfigError, ContextOverflow, EngineError, QueueFull, RequestError, TokenizerError
from seamount.kernels.paged import PAGE
from seamount.models import Model, fingerprint
from seamount.models.parts.pages import Pages
from seamount.tokenizer import Tokenizer

_CHECK_EVERY = 1.0  # seconds, at most


class Engine:
    """Answers prompts with one model; requests share its steps and the rows of equal beginnings.

    memory: bytes for cached rows and the work of a step, or a text such as 8GiB; options: see EngineConfig.

    Whoever waits for an answer runs the steps (`generate`, `stream`); or one thread runs them for all (`run`), and
    answers come through sinks (`add`). Every method may be called from any thread.

    Errors: TokenizerError if the model has no tokenizer; ConfigError for options out of range. Later EngineError from
    methods that wait for a step, called by a sink: the step waits for the sink.
    """

    def __init__(self, model: LanguageModel, memory: int | str | None = None, **options: Any) -> None:
        if model.tokenizer is None:
            raise TokenizerError("the model has no tokenizer, so no text can be made; load one that has")
        self.config = EngineConfig(memory=memory, **options)
        self.tokenizer: Tokenizer = model.tokenizer
        self.metrics = Metrics()
        self._model = model
        self._drafts = self._draft_source()
        self._layout = model.page_layout
        if (has_mtp := isinstance(self._drafts, MTPDrafts)) or self.config.rows == "compressed":
            self._layout = cast(Model, model).layout(is_compressed=self.config.rows == "compressed", has_mtp=has_mtp)
        pages = Pages(self._layout, self._page_count(), model.device)
        self._tier = self._open_tier(pages.layout.nbytes)
        self._store = PrefixCache(pages, self._tier, self._root_key())
        drafter = Drafter(self._drafts)
        self._scheduler = Scheduler(self._store, self.config, drafter)
        self._stepper = Stepper(model, model.tokenizer, self._scheduler, drafter, self.metrics)
        self._grammars = GrammarCompiler(model.tokenizer, model.spec.vocab_size)
        self._lock = StepLock()
        self._inbox: deque[Request | int | None] = deque()  # requests to add, ids of those to abort; None: all of them
        self._requests: dict[int, Request] = {}
        # Locked until there may be something to do. No Event: its methods cannot be entered again while one of them is
        # half done, and an abort may come at any place, from a signal's handler or the garbage collector.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._checked_at = 0.0
        self._is_closed = False

    def add(self, prompt: str | Tokens[int], params: SamplingParams | None = None, sink: Sink | None = None) -> int:
        """Queue a prompt, text or token ids; the request's id. Its chunks go to `sink` and are what `step` returns.

        Errors: RequestError for an empty prompt or token ids outside the vocabulary, or a grammar that makes no sense;
        ContextOverflow if prompt and answer do not fit; QueueFull if too many wait; EngineError after `close`. All
        before any work.
        """
        return self._add(prompt, params or SamplingParams(), sink or (lambda item: None)).id

    def step(self) -> list[Chunk]:
        """Run one step of the model over whatever there is to do; what was drawn. Nothing to do: an empty list."""
        with self._lock:
            self._take_inbox()
            chunks = self._stepper.step()
            while self._stepper.ended:
                del self._requests[self._stepper.ended.pop()]
            self._measure()
        self._look_into_inbox()
        return chunks

    def abort(self, request_id: int) -> None:
        """End a request without an answer, and free its pages: now, or where a step is running, right after it.

        Its sink gets None. An id that has ended already is no error.
        """
        self._post(request_id)

    @property
    def context_length(self) -> int:
        """The most tokens of a prompt and its answer."""
        return min(int(self._model.spec.context_length), self._store.pages.count * PAGE + 1)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._inbox or self._requests)

    def run(self, until: threading.Event, beside: Tokens[Engine] = ()) -> None:
        """Run steps for requests that come from elsewhere, until the event is set and `wake` is called.

        beside: other engines, whose steps this thread runs in turn with its own: two steps at once would take each
        other's cores.
        """
        for other in beside:
            other._bell = self._bell
        while not until.is_set():
            at_work = [engine for engine in (self, *beside) if engine.has_work]
            for engine in at_work:
                engine.step()
            if not at_work:
                self._bell.acquire()

    def wake(self) -> None:
        """Let `run` look whether it is to end."""
        with suppress(RuntimeError):  # it has been rung already
            self._bell.release()

    def stream(self, prompt: str | Tokens[int], params: SamplingParams | None = None) -> Generation:
        """The answer to one prompt, token by token; closing the iterator stops the work.

        Errors: as for add.
        """
        return self._generation(prompt, params or SamplingParams(), 0)

    def generate(
        self, prompts: Tokens[str] | Tokens[Tokens[int]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """The answers to some prompts, texts or token ids, in their order.

        A prompt that comes several times gets as many different samples, also with a seed; a prompt's answer does not
        depend on the other prompts.

        Errors: as for add, before any prompt is answered.
        """
        if isinstance(prompts, str):
            raise RequestError(f"prompts = {prompts[:40]!r}; allowed is a list of prompts: put the text into a list")
        params = params or SamplingParams()
        earlier: Counter[tuple[int, ...]] = Counter()
        generations: list[Generation] = []
        try:
            for prompt in prompts:
                tokens = self._tokens(prompt)
                generations.append(self._generation(tokens, params, earlier[tuple(tokens)]))
                earlier[tuple(tokens)] += params.n
            return [generation.complete() for generation in generations]
        finally:
            for generation in generations:
                generation.close()

    def stop(self) -> None:
        """Abort all requests that work or wait now, from any thread."""
        self._post(None)

    def weights_changed(self) -> None:
        """To be called after the model's weights were changed: no row that they computed before is used again.

        Requests at work go on with the new weights, and compute the rows of what they have again.
        """
        with self._lock:
            for sequence in list(self._scheduler.running):
                self._scheduler.preempt(sequence)
            self._model.weights_changed()
            self._store.clear(self._root_key())

    def check(self) -> None:
        """Assert that no page is lost or in two places. Runs by itself when the engine becomes idle."""
        with self._lock:
            self._check()

    def close(self) -> None:
        """End all requests and the threads of this engine; what the prefix cache holds goes to disk, if it has one.

        Waits for the step that runs. From now on requests are refused.
        """
        self._is_closed = True
        self.stop()
        with self._lock:
            self._take_inbox()
            self._stepper.close()
            self._store.save_all()
        if self._tier is not None:
            self._tier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_tier(self, page_bytes: int) -> DiskTier | None:
        config = self.config
        if config.cache_directory is None:
            return None
        return DiskTier(Path(config.cache_directory), config.cache_bytes, page_bytes, config.queue_bytes)

    def _root_key(self) -> bytes:
        """What stands for the model's weights and the layout of a page in the keys of the disk's pages."""
        return b"" if self._tier is None else root_key(fingerprint(cast(Model, self._model)), self._layout.description)

    def _draft_source(self) -> DraftSource | None:
        if self.config.drafts != "mtp":
            return NGrams() if self.config.drafts == "ngram" else None
        if not len(getattr(self._model, "mtp", ())):
            raise ConfigError("drafts = 'mtp', and this model has no MTP layers; allowed are off and ngram")
        return MTPDrafts(cast(Model, self._model))

    def _page_count(self) -> int:
        """As many pages as the budget holds, but no more than so many answers could ever fill."""
        model, config, layout = self._model, self.config, self._layout
        # Everyone who decodes has a place in each step, also where those are more than step_tokens.
        work = model.step_bytes(max(config.step_tokens, config.max_running), most_logits(config))
        if isinstance(self._drafts, MTPDrafts):
            work += self._drafts.nbytes(max(config.step_tokens, config.max_running), config.max_running)
        # A third more for what is not counted piece by piece: Python's objects of requests, the allocator's gaps.
        work += work // 3
        if config.cache_directory is not None:
            work += max(config.queue_bytes, layout.nbytes)
        count = (config.memory_bytes - work) // layout.nbytes
        if count < 1:
            raise ConfigError(
                f"memory = {config.memory_bytes} bytes; a step of {config.step_tokens} tokens takes {work}, and a page "
                f"of {PAGE} tokens {layout.nbytes}: give more, or lower step_tokens and max_running"
            )
        return min(count, config.max_running * -(-model.spec.context_length // PAGE))

    def _generation(self, prompt: str | Tokens[int], params: SamplingParams, sample_index: int) -> Generation:
        arrived: deque[Chunk | Exception | None] = deque()
        request = self._add(prompt, params, arrived.append, sample_index)
        return Generation(self, request, arrived)

    def _add(self, prompt: str | Tokens[int], params: SamplingParams, sink: Sink, sample_index: int = 0) -> Request:
        tokens = self._tokens(prompt)
        max_tokens = self._room(len(tokens), params)
        params.require_vocabulary(self.tokenizer.vocab_size)
        matcher = None if params.grammar is None else self._grammars.compile(params.grammar)
        if self._is_closed:
            raise EngineError("this engine is closed; make another one")
        if len(self._scheduler.waiting) + len(self._inbox) >= self.config.max_waiting:
            self.metrics.refused += 1
            raise QueueFull(f"{self.config.max_waiting} requests wait already; ask again later, or raise max_waiting")
        request = Request(tokens, params, max_tokens, sample_index, sink)
        request.sequences.append(Sequence(request, 0, self.tokenizer, matcher))
        self._inbox.append(request)
        self.wake()
        return request

    def _tokens(self, prompt: str | Tokens[int]) -> list[int]:
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise RequestError("the prompt has 0 tokens; at least 1 is needed")
        size = self._model.spec.vocab_size
        for token_id in tokens:
            if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < size:
                raise RequestError(f"prompt token id {token_id!r}; allowed are the integers from 0 to {size - 1}")
        return tokens

    def _room(self, prompt_count: int, params: SamplingParams) -> int:
        """The most tokens that the answer may have."""
        context, held = self._model.spec.context_length, self._store.pages.count * PAGE
        needed = params.max_tokens or 1
        asked = (
            f"the prompt has {prompt_count} tokens and the answer may have {params.max_tokens or 'at least 1'}, but "
        )
        if prompt_count + needed > context:
            raise ContextOverflow(f"{asked}the model's context holds {context}; shorten the prompt or lower max_tokens")
        if prompt_count + needed - 1 > held:
            raise ContextOverflow(
                f"{asked}this engine's memory holds {held}; give it more, shorten the prompt or lower max_tokens"
            )
        return params.max_tokens or min(context - prompt_count, held - prompt_count + 1)

    def _post(self, request_id: int | None) -> None:
        self._inbox.append(request_id)
        self._look_into_inbox()
        self.wake()

    def _look_into_inbox(self) -> None:
        """See to what came, unless a step runs: whoever runs it does so right after it."""
        # Not waiting for the lock: this may be called while this very thread holds it, when an iterator is collected.
        while self._inbox and self._lock.try_to_enter():
            try:
                self._take_inbox()
                self._measure()
            finally:
                self._lock.leave()

    def _take_inbox(self) -> None:
        while self._inbox:
            item = self._inbox[0]
            if isinstance(item, Request):
                self._requests[item.id] = item
                self._scheduler.add(item.sequences[0])
                self.metrics.requests += 1
                self.metrics.prompt_tokens += len(item.prompt)
            else:
                for request_id in list(self._requests) if item is None else [item]:
                    self._end(request_id)
            # Last of all, as in _end: between the two a request would be nowhere, for `has_work` of other threads.
            self._inbox.popleft()

    def _end(self, request_id: int) -> None:
        request = self._requests.get(request_id)
        if request is not None:
            for sequence in request.sequences:
                self._scheduler.remove(sequence)
            self.metrics.aborted += 1
            request.deliver(None)
            del self._requests[request_id]

    def _measure(self) -> None:
        scheduler, store, metrics = self._scheduler, self._store, self.metrics
        metrics.running, metrics.waiting = len(scheduler.running), len(scheduler.waiting)
        metrics.preemptions = scheduler.preemptions
        metrics.pages, metrics.page_bytes = store.pages.count, store.pages.layout.nbytes
        metrics.pages_cached, metrics.pages_used = store.cached, store.pages.count - store.available
        metrics.hit_tokens, metrics.disk_hit_tokens, metrics.evictions = (
            store.hit_tokens, store.disk_tokens, store.evictions,
        )  # fmt: skip
        if not scheduler.running and not scheduler.waiting and time.monotonic() - self._checked_at > _CHECK_EVERY:
            self._check()
            self._checked_at = time.monotonic()

    def _check(self) -> None:
        rows = [sequence.rows for sequence in self._scheduler.running if sequence.rows is not None]
        self._store.check([held.nodes for held in rows], [page for held in rows for page in held.own])
