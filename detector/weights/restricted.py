"""Reading of pickles without running the code that they name.

A pickle names classes and functions, which Python's own reader imports and calls. Here no name is imported:
tensors, arrays and plain containers are rebuilt, and everything else becomes a placeholder that keeps its
content and does nothing. Names that are not data, such as a shell command, are refused.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy._core import multiarray, numeric

_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
}  # pickles name Python 2's modules up to protocol 2


class RefusedError(pickle.UnpicklingError):
    """A pickle has a name that no data needs. The message is that name."""


def _bytes(text: str, encoding: str) -> bytes:
    """Return bytes, which pickles up to protocol 2 hold as text."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


# Containers, arrays and tensors are rebuilt unchanged: by these types, which a pickle cannot modify ...
_TYPES: dict[str, Any] = {
    "builtins.bytearray": bytearray,
    "builtins.bytes": bytes,
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.list": list,
    "builtins.set": set,
    "builtins.tuple": tuple,
    "collections.OrderedDict": OrderedDict,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
}
# ... and by these functions.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _bytes,
    "collections.defaultdict": lambda *default: {},
    "numpy.core.multiarray._reconstruct": multiarray._reconstruct,
    "numpy._core.multiarray._reconstruct": multiarray._reconstruct,
    "numpy._core.numeric._frombuffer": numeric._frombuffer,  # type: ignore[attr-defined]
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
}
# Standard library names that are data or help to rebuild it. Others are refused.
_DATA = (
    "_io.BytesIO",
    "_io.StringIO",
    "argparse.Namespace",
    "array.",
    "collections.",
    "copyreg.",
    "dataclasses.",
    "datetime.",
    "decimal.",
    "enum.",
    "fractions.",
    "functools.partial",
    "ipaddress.",
    "itertools.",
    "logging.",
    "math.",
    "operator.",
    "pathlib.",
    "random.",
    "re._compile",
    "time.struct_time",
    "types.SimpleNamespace",
    "typing.",
    "uuid.",
    "zoneinfo.",
)
_DATA_OF_BUILTINS = frozenset(
    f"builtins.{name}"
    for name in [
        "bool",
        "dict",
        "enumerate",
        "filter",
        "float",
        "getattr",
        "int",
        "iter",
        "long",
        "map",
        "object",
        "range",
        "reversed",
        "slice",
        "str",
        "type",
        "unicode",
        "xrange",
        "zip",
    ]
)


class Placeholder(dict[Any, Any]):
    """A stand-in for an object that is not rebuilt; it keeps items and attributes as items."""

    dump_patches = False  # torch reads it if its old format holds a whole model
    __hash__ = object.__hash__  # type: ignore[assignment]  # as a member of a set, or a key

    def __new__(cls, *args: object, **keywords: object) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # attributes in __dict__ and in slots
        for part in parts:
            if isinstance(part, Mapping):
                self.update(part)

    def append(self, item: object) -> None:
        """Leave out an item of a list."""

    def extend(self, items: object) -> None:
        """Leave out items of a list."""

    def add(self, item: object) -> None:
        """Leave out an item of a set."""

    def __call__(self, *args: object, **keywords: object) -> Placeholder:
        return Placeholder()


class _Rebuild:
    """A wrapper by which a pickle may call a function, but not set its attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("the attributes of a function")


class RestrictedPickle:
    """A restricted version of the parts of the module `pickle` that `torch.load` needs.

    `placeholders` has the names that became placeholders.

    >>> RestrictedPickle().load(io.BytesIO(pickle.dumps({"weight": np.zeros(3)})))
    {'weight': array([0., 0., 0.])}
    """

    __name__ = __name__

    def __init__(self) -> None:
        self.placeholders: dict[str, None] = {}
        names = self.placeholders

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                full_name = f"{_RENAMED.get(module, module)}.{name}"
                return _allowed(full_name) or _placeholder(full_name, names)

        self.Unpickler = Unpickler

    def load(self, file: BinaryIO, **options: Any) -> Any:
        """Return the object in `file`. Like `pickle.load`, a damaged file raises any exception."""
        return self.Unpickler(file, **options).load()


def _allowed(full_name: str) -> Any:
    dtype = getattr(torch, full_name.removeprefix("torch."), None) if full_name.startswith("torch.") else None
    if isinstance(dtype, torch.dtype):
        return dtype
    if full_name in _FUNCTIONS:
        return _Rebuild(_FUNCTIONS[full_name])
    return _TYPES.get(full_name)


def _placeholder(full_name: str, placeholders: dict[str, None]) -> type[Placeholder]:
    is_data = full_name.startswith(_DATA) or full_name in _DATA_OF_BUILTINS
    if full_name.partition(".")[0] in sys.stdlib_module_names and not is_data:
        raise RefusedError(full_name)
    placeholders[full_name] = None
    return type("Placeholder", (Placeholder,), {})
