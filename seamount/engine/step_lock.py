"""Who may run a step."""

from __future__ import annotations

import threading

from seamount.errors import EngineError


class StepLock:
    """Held during a step. A thread that holds it and would wait for itself gets an error instead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0

    def try_to_enter(self) -> bool:
        """Hold it if nobody does."""
        is_free = self._lock.acquire(blocking=False)
        if is_free:
            self._holder = threading.get_ident()
        return is_free

    def leave(self) -> None:
        """Let others have it."""
        self._holder = 0
        self._lock.release()

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise EngineError(
                "a sink called the engine during a step, which waits for the sink: only add, abort and stop may be "
                "called there; do the rest in another thread or after the step"
            )
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *error: object) -> None:
        self.leave()
