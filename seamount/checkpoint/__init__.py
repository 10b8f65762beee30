"""Checkpoints: finding them, reading safetensors directories and GGUF files, and writing the Hugging Face layout.

Nothing here runs code from a checkpoint: pickles are refused unread, headers are checked in full, and no file outside
the checkpoint's directory is opened.
"""

from seamount.checkpoint.fp8 import decode_fp8, encode_fp8
from seamount.checkpoint.gguf_file import GGUFFile
from seamount.checkpoint.locating import Located, locate
from seamount.checkpoint.opening import open_tensors, read_config
from seamount.checkpoint.safetensors_directory import SafetensorsDirectory
from seamount.checkpoint.tensor_source import TensorSource
from seamount.checkpoint.writer import CheckpointWriter

__all__ = [
    "CheckpointWriter",
    "GGUFFile",
    "Located",
    "SafetensorsDirectory",
    "TensorSource",
    "decode_fp8",
    "encode_fp8",
    "locate",
    "open_tensors",
    "read_config",
]
