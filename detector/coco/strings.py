"""A table of many strings in two buffers, which forked loader workers share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from detector.coco.ragged import offsets


@dataclass(frozen=True)
class StringTable:
    """A read-only sequence of strings, stored as one UTF-8 blob and its offsets.

    A list of 118,000 Python strings would be copied page by page into every worker, as workers touch the
    reference counts; a table is not.
    """

    blob: bytes
    offsets: np.ndarray  # int64, one more than the number of strings

    @staticmethod
    def from_strings(strings: Iterable[str]) -> StringTable:
        # surrogatepass: JSON may hold lone surrogates, which name no file but must not crash here
        encoded = [s.encode("utf-8", "surrogatepass") for s in strings]
        return StringTable(b"".join(encoded), offsets([*map(len, encoded)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, stop = self.offsets[index], self.offsets[index + 1]
        return self.blob[start:stop].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def select(self, indices: np.ndarray) -> StringTable:
        return StringTable.from_strings(self[int(i)] for i in indices)
