"""Prompts to answers: sampling, stop strings, streaming."""

from seamount.engine.engine import Engine
from seamount.engine.generation import Generation, LanguageModel
from seamount.engine.params import SamplingParams
from seamount.engine.results import Chunk, Completion, FinishReason, Timing

__all__ = ["Chunk", "Completion", "Engine", "FinishReason", "Generation", "LanguageModel", "SamplingParams", "Timing"]
