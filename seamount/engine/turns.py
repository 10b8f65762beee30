"""Who may use the model now."""

from __future__ import annotations

import threading
from collections import deque

from seamount.errors import RequestError


class Ticket:
    """One request's place in the queue; it can be cancelled from any thread."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.thread_id: int | None = None


class Turns:
    """A queue of requests; the first in it holds the turn. First come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()

    def wait(self, ticket: Ticket) -> bool:
        """Queues up, and returns whether it is the ticket's turn: False if it was cancelled instead.

        Errors: RequestError if this thread holds the turn already and would wait for itself for ever.
        """
        with self._changed:
            ticket.thread_id = threading.get_ident()
            if self._queue and self._queue[0].thread_id == ticket.thread_id:
                raise RequestError(
                    "this thread has an unfinished stream on the same engine; finish or close it before the next"
                )
            self._queue.append(ticket)
            is_ours = False
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket or ticket.is_cancelled)
                is_ours = not ticket.is_cancelled
            finally:
                # Also when Ctrl-C ends the wait: who stays in the queue without working blocks all behind.
                if not is_ours:
                    self._leave(ticket)
            return is_ours

    def done(self, ticket: Ticket) -> None:
        """Passes the turn on."""
        with self._changed:
            self._leave(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """Wakes the ticket's thread if it waits, and tells it to stop if it works."""
        with self._changed:
            ticket.is_cancelled = True
            self._changed.notify_all()

    def cancel_all(self) -> None:
        """Cancels whoever works or waits now."""
        with self._changed:
            for ticket in self._queue:
                ticket.is_cancelled = True
            self._changed.notify_all()

    def _leave(self, ticket: Ticket) -> None:
        self._queue.remove(ticket)
        self._changed.notify_all()
