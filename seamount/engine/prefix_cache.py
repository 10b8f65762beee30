"""The pages of the pool: which are free, and a tree of those that hold the rows of known tokens.

A node of the tree is a page: its tokens are what follows its parent's. Since a row depends on the tokens up to its own
alone, and has the same bits whoever computed it, a page may serve every sequence that begins with the same tokens. Full
pages are shared; of others, and of pages that agree for a while, the rows that agree are copied.

Pages that nobody uses stay until room is needed. Evicted is first what is least worth: priority = clock + uses * cost,
where cost grows with the rows that computing it again would attend to, and the clock is the priority last evicted.
Source: GreedyDual-Size-Frequency, Cherkasova 1998.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from seamount.engine.disk_tier import DiskTier, child_key
from seamount.kernels.paged import PAGE
from seamount.models.parts.pages import Pages

# Attending to one cached row, in units of the rest of a token's work: 2.0e-4 for V2-Lite, 2.3e-4 for V3, 2.6e-4 for a
# dense model of 135M.
_ROW_COST = 2e-4


class Node:
    """A page of known content. `users`: the sequences that hold it; who holds a node holds those above it."""

    __slots__ = ("children", "is_attached", "key", "page", "parent", "priority", "start", "tokens", "users", "uses")

    def __init__(self, tokens: tuple[int, ...], page: int, parent: Node | None) -> None:
        self.tokens, self.page, self.parent = tokens, page, parent
        self.start: int = 0 if parent is None else parent.start + len(parent.tokens)
        self.children: dict[int, list[Node]] = {}  # by their first token
        self.users, self.uses, self.priority, self.is_attached = 0, 0, 0.0, True
        self.key = b""

    @property
    def is_full(self) -> bool:
        """Whether it may be shared, and have children."""
        return len(self.tokens) == PAGE


class PrefixCache:
    """Hands out pages, and finds those that hold a sequence's first tokens already.

    tier: slower memory behind the pool, with the key that stands before the first page (`root_key`).
    """

    def __init__(self, pages: Pages, tier: DiskTier | None = None, root_key: bytes = b"") -> None:
        self.pages = pages
        self.hit_tokens = self.disk_tokens = self.evictions = 0  # the hits are counted by whoever takes them
        self._tier = tier
        self._free = list(range(pages.count))[::-1]  # the last given back is the first taken: it is in the CPU's caches
        self._root = _root(root_key)
        self._heap: list[tuple[float, int, Node]] = []
        self._ticks = count()
        self._clock, self._idle = 0.0, 0

    @property
    def available(self) -> int:
        """Pages that `take` could give."""
        return len(self._free) + self._idle

    @property
    def cached(self) -> int:
        """Pages that nobody uses and that hold known rows."""
        return self._idle

    def take(self) -> int | None:
        """A page of undefined content, or None if all are in use."""
        if not self._free and not self._evict():
            return None
        return self._free.pop()

    def give(self, page: int) -> None:
        """Take back a page that is no node."""
        self._free.append(page)

    def hold(self, nodes: Iterable[Node]) -> None:
        """Count one more user of these nodes."""
        for node in nodes:
            if not node.users:
                self._idle -= 1
            node.users += 1

    def release(self, nodes: Sequence[Node]) -> None:
        """Count one user less, of the last node first."""
        for node in reversed(nodes):
            node.users -= 1
            if not node.users:
                self._idle += 1
                self._offer(node)

    def match(self, tokens: Sequence[int], limit: int) -> tuple[list[Node], int, int]:
        """The longest known beginning of `tokens`, of at most `limit`: nodes, a page for the rest, its rows.

        The nodes are held for the caller. The page is a copy that belongs to the caller; rows 0 stand for no page.
        """
        nodes: list[Node] = []
        node = self._root
        while node.start + len(node.tokens) + PAGE <= limit:
            start = node.start + len(node.tokens)
            wanted = tuple(tokens[start : start + PAGE])
            child = self._child(node, wanted) or self._from_disk(node, wanted)
            if child is None:
                break
            self.hold([child])
            self._use(child)
            nodes.append(child)
            node = child
        return nodes, *self._copy_of_best(node, tokens, limit)

    def insert(self, parent: Node | None, tokens: Sequence[int], page: int) -> Node:
        """A caller's full page becomes a node that the caller holds: an older one, if the tokens are known already."""
        parent, wanted = parent or self._root, tuple(tokens)
        node = self._child(parent, wanted)
        if node is not None:
            self.give(page)
        else:
            self._drop_beginnings(parent, wanted)
            node = self._attach(parent, wanted, page)
            self._idle += 1
        self.hold([node])
        return node

    def keep(self, parent: Node | None, tokens: Sequence[int], page: int) -> None:
        """A caller's page that is not full becomes a node that nobody holds, or is free if its tokens are known."""
        parent, wanted = parent or self._root, tuple(tokens)
        size = len(wanted)
        if any(child.tokens[:size] == wanted for child in parent.children.get(wanted[0], ())):
            self.give(page)
            return
        self._drop_beginnings(parent, wanted)
        node = self._attach(parent, wanted, page)
        self._idle += 1
        self._offer(node)

    def clear(self, root_key: bytes = b"") -> None:
        """Forget all rows; to be called when no sequence holds any. The key is for those that will come."""
        for node in list(self._nodes()):
            assert not node.users, "pages are in use"
            node.is_attached = False
            self._free.append(node.page)
        self._root, self._heap, self._idle = _root(root_key), [], 0

    def save_all(self) -> None:
        """Give every full page to the slower tier; waits where its queue is full."""
        for node in self._nodes():
            if self._tier is not None and not self._save(node):
                self._tier.flush()
                self._save(node)

    def check(self, held: Sequence[Sequence[Node]], own: Sequence[int]) -> None:
        """Assert that every page is in exactly one place, given what sequences hold and own.

        Cost: a walk through all pages; meant for when there is no work.
        """
        nodes = list(self._nodes())
        places = sorted([*self._free, *(node.page for node in nodes), *own])
        assert places == list(range(self.pages.count)), "a page is lost, or in two places"
        users: dict[int, int] = {}
        for node in (node for nodes in held for node in nodes):
            users[id(node)] = users.get(id(node), 0) + 1
        assert all(node.users == users.get(id(node), 0) for node in nodes), "a page's users are miscounted"
        assert self._idle == sum(not node.users for node in nodes), "idle pages are miscounted"

    def _nodes(self) -> Iterator[Node]:
        stack = [self._root]
        while stack:
            for siblings in stack.pop().children.values():
                yield from siblings
                stack.extend(siblings)

    def _child(self, parent: Node, tokens: tuple[int, ...]) -> Node | None:
        return next((child for child in parent.children.get(tokens[0], ()) if child.tokens == tokens), None)

    def _attach(self, parent: Node, tokens: tuple[int, ...], page: int) -> Node:
        node = Node(tokens, page, parent)
        if self._tier is not None and node.is_full:
            node.key = child_key(parent.key, tokens)
        parent.children.setdefault(tokens[0], []).append(node)
        return node

    def _detach(self, node: Node) -> None:
        """Out of the tree; the page is free."""
        parent = node.parent
        assert parent is not None, "the root stays"
        assert not node.users, "a page in use stays"
        siblings = parent.children[node.tokens[0]]
        siblings.remove(node)
        if not siblings:
            del parent.children[node.tokens[0]]
        node.is_attached = False
        self._idle -= 1
        self._free.append(node.page)

    def _drop_beginnings(self, parent: Node, tokens: tuple[int, ...]) -> None:
        """Remove pages whose rows a newer page holds as well."""
        for child in list(parent.children.get(tokens[0], ())):
            if len(child.tokens) < len(tokens) and tokens[: len(child.tokens)] == child.tokens and not child.users:
                self._detach(child)

    def _copy_of_best(self, node: Node, tokens: Sequence[int], limit: int) -> tuple[int, int]:
        """A copy of the child that agrees with the next tokens for longest: page and rows."""
        start = node.start + len(node.tokens)
        wanted = tuple(tokens[start : min(start + PAGE, limit)])
        best, rows = None, 0
        for child in node.children.get(wanted[0], ()) if wanted else ():
            agreeing = _agreement(child.tokens, wanted)
            if agreeing > rows:
                best, rows = child, agreeing
        if best is None:
            return -1, 0
        self.hold([best])
        page = self.take()
        if page is not None:
            self.pages.copy(best.page, page)
            self._use(best)
        self.release([best])
        return (-1, 0) if page is None else (page, rows)

    def _use(self, node: Node) -> None:
        node.uses += 1
        if node.uses == 1:  # shared from now on
            self._save(node)

    def _from_disk(self, parent: Node, tokens: tuple[int, ...]) -> Node | None:
        if self._tier is None:
            return None
        page = self.take()
        if page is None:
            return None
        if not self._tier.load(child_key(parent.key, tokens), tokens, self.pages.memory[page]):
            self.give(page)
            return None
        self._drop_beginnings(parent, tokens)
        node = self._attach(parent, tokens, page)
        self._idle += 1
        self.disk_tokens += PAGE
        return node

    def _save(self, node: Node) -> bool:
        """Whether nothing has to be written, or it is on its way."""
        if self._tier is None or not node.is_full:
            return True
        return self._tier.save(node.key, node.tokens, self.pages.memory[node.page])

    def _offer(self, node: Node) -> None:
        """Let a node that nobody uses be evicted, if it is a leaf."""
        if node.parent is not None and node.is_attached and not node.users and not node.children:
            cost = 1 + _ROW_COST * (node.start + len(node.tokens) / 2)
            node.priority = self._clock + (1 + min(node.uses, 8)) * cost * len(node.tokens) / PAGE
            heapq.heappush(self._heap, (node.priority, next(self._ticks), node))
            if len(self._heap) > 4 * self.pages.count + 64:  # most are out of date: of nodes that are used often
                self._heap = list({entry[2]: entry for entry in self._heap if _is_valid(entry)}.values())
                heapq.heapify(self._heap)

    def _evict(self) -> bool:
        """Free the page that is least worth, if there is one that nobody uses."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if _is_valid(entry):
                self._clock, _, node = entry
                self._save(node)
                self._detach(node)
                self.evictions += 1
                assert node.parent is not None
                self._offer(node.parent)
                return True
        return False


def _is_valid(entry: tuple[float, int, Node]) -> bool:
    """Whether the node may still be evicted, and this is its last priority."""
    priority, _, node = entry
    return node.is_attached and not node.users and not node.children and node.priority == priority


def _root(key: bytes) -> Node:
    root = Node((), -1, None)
    root.key = key
    root.users = 1  # it has no page that could be evicted
    return root


def _agreement(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """How many first tokens are equal."""
    size = min(len(left), len(right))
    return size if left[:size] == right[:size] else next(i for i in range(size) if left[i] != right[i])
