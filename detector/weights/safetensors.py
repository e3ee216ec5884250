"""Reading of safetensors files: header length, JSON header, and the concatenated bytes of the tensors.

The format is fixed and small, so it is read here instead of by another dependency.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def is_safetensors(path: Path) -> bool:
    """Return whether the file has the extension or the beginning of a safetensors file."""
    with path.open("rb") as file:
        start = file.read(9)
    begins = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8
    return path.suffix.lower() == ".safetensors" or begins


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Raises:
        ValueError: the file is truncated, or its header does not match its bytes.
    """
    content = bytearray(path.read_bytes())  # writable, as memory of tensors must be
    if len(content) < 8:
        raise ValueError(f"it has {len(content)} bytes, a file of safetensors has 8 and more.")
    length = int.from_bytes(content[:8], "little")
    if length > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(
            f"its header should have {length} bytes, and the file has {len(content)}: it is cut off or "
            "damaged. Copy or download it again."
        )
    start = 8 + length
    header = _header(bytes(content[8:start]))
    state, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = _checked_range(name, entry, after=end)
        if end > len(content) - start:
            raise ValueError(
                f"its entry {name} ends at byte {start + end} of {len(content)}: it is cut off. "
                "Copy or download it again."
            )
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        count = math.prod(shape)
        values = (
            torch.frombuffer(content, dtype=dtype, count=count, offset=start + begin)
            if count
            else torch.empty(0, dtype=dtype)
        )
        state[name] = values.reshape(shape).clone()
    if end != len(content) - start:
        raise ValueError(
            f"its tensors end at byte {start + end} of {len(content)}: it is damaged. Copy or download it "
            "again."
        )
    return state


def _header(text: bytes) -> dict[str, dict[str, Any]]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"its header is no JSON ({error}): it is damaged. Copy or download it again."
        ) from error
    if not isinstance(header, dict):
        raise ValueError("its header is no table of entries: it is damaged. Copy or download it again.")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if not _is_entry(entry):
            dtypes = ", ".join(_DTYPES)
            raise ValueError(
                f"its entry {name} is described as {repr(entry)[:100]}, expected dtype ({dtypes}), shape and "
                "data_offsets. Save its tensors with safetensors.torch.save_file."
            )
    return header


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return False
    shape, offsets = entry["shape"], entry["data_offsets"]
    return (
        isinstance(entry["dtype"], str)
        and entry["dtype"] in _DTYPES
        and all(isinstance(numbers, list) for numbers in (shape, offsets))
        and all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets))
        and len(offsets) == 2
    )


def _checked_range(name: str, entry: dict[str, Any], *, after: int) -> tuple[int, int]:
    """Return the byte range of an entry, which must begin where the previous one ends."""
    begin, end = entry["data_offsets"]
    size = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
    if begin != after or end - begin != size:
        raise ValueError(
            f"its entry {name} of {entry['dtype']} {entry['shape']} lies at bytes {begin} to {end}, expected "
            f"{after} to {after + size}: it is damaged. Copy or download it again."
        )
    return begin, end
