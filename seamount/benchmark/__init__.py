"""How fast a model is under the engine, beside what this machine could do at most."""

from seamount.benchmark.by_turns import decode, prefill
from seamount.benchmark.machine import described, processor
from seamount.benchmark.serving import prefixes, serve
from seamount.benchmark.subject import Subject
from seamount.benchmark.work import Work
from seamount.benchmark.workload import Workload

__all__ = ["Subject", "Work", "Workload", "decode", "described", "prefill", "prefixes", "processor", "serve"]
