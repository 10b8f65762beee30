"""Tries a grammar in a process of its own; run as a script, it is that process.

llguidance bounds the work of most grammars, but not of all: a chain of a thousand references overflows the stack of the
process, and intersections of forty small expressions take minutes. Neither may happen to a server.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import llguidance

CPU_SECONDS, MEMORY_BYTES, STACK_BYTES = 2, 2 * 2**30, 2**22
"""What compiling a grammar may take; the stack is half of what the threads of the real process have at least."""
_WALL_SECONDS = 60

# Tokens are chosen freely among those that fit. By default llguidance would allow one token alone where the text is
# determined, and so change tokens that conform.
OPTIONS = '\n%llguidance {"no_forcing": true}\n'


def limits() -> llguidance.LLParserLimits:
    """Limits for one matcher; a lexer state is 1 to 2 kB."""
    return llguidance.LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


def fault(lark: str) -> str:
    """Why a grammar cannot be used, or nothing.

    Cost: a Python process with one import, some 150 ms.
    """
    command = [sys.executable, "-P", __file__]
    try:
        tried = subprocess.run(command, input=lark.encode(), capture_output=True, timeout=_WALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"it takes longer than {_WALL_SECONDS} s to compile"
    if tried.returncode == 0:
        return tried.stdout.decode()
    return f"it is nested too deeply, or takes more than {CPU_SECONDS} s or {MEMORY_BYTES // 2**20} MiB to compile"


def plain(reason: str) -> str:
    """The reason without the excerpt of the source, the place of our own first rule in it, and backtraces."""
    reason = re.split(r"\n?<(?:backtrace|non-verbose|state)|\n\s*\d+ \| ", reason, maxsplit=1)[0]
    lines = [line.strip() for line in reason.splitlines() if line.strip(" ^")]
    return " ".join(lines).removeprefix("at 1(8): ")[:400]


def _limit_this_process() -> None:
    try:
        import resource
    except ImportError:  # on Windows, where only the time on the wall is limited
        return
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _try() -> None:
    tokenizer = llguidance.LLTokenizer("byte")
    lark = sys.stdin.buffer.read().decode()
    matcher = llguidance.LLMatcher(tokenizer, lark + OPTIONS, log_level=0, limits=limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    sys.stdout.buffer.write(matcher.get_error().encode())


if __name__ == "__main__":
    _limit_this_process()
    threading.stack_size(STACK_BYTES)
    trial = threading.Thread(target=_try)
    trial.start()
    trial.join()
