"""The problems of a dataset, collected so that one message lists them all, then raised or logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from detector.coco.rules import printable

_log = logging.getLogger(__name__)

MAX_LISTED = 20  # lines of a message


@dataclass
class Findings:
    """The problems under one policy: all are counted, the first `MAX_LISTED` are described."""

    count: int = 0
    lines: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)  # each for several problems at once

    def add(self, indices: np.ndarray | Iterable[int], describe: Callable[[int], str]) -> None:
        indices = list(indices)
        self.count += len(indices)
        for i in indices[: max(0, MAX_LISTED - len(self.lines))]:
            self.lines.append(printable(describe(int(i))))

    def note(self, line: str) -> None:
        """Add one problem by its description."""
        self.add([0], lambda _: line)

    def text(self) -> str:
        rest = self.count - len(self.lines)
        more = [f"  ... and {rest} more"] if rest else []
        return "\n".join([*(f"  {line}" for line in self.lines), *more, *self.remedies])


@dataclass(frozen=True)
class Policy:
    """Which problems are forgiven: bad images are skipped, bad annotations dropped by `drop_option`."""

    skip: bool
    drop: bool
    drop_option: str


@dataclass(frozen=True)
class Problems:
    """The problems of a file: those that are always errors, and those of images and of annotations."""

    fatal: Findings = field(default_factory=Findings)
    images: Findings = field(default_factory=Findings)
    boxes: Findings = field(default_factory=Findings)


def settle(source: str, problems: Problems, policy: Policy) -> None:
    """Raise one ValueError with every problem that `policy` does not forgive; log the forgiven ones."""
    kinds = (
        (problems.fatal, False, "file", ""),
        (problems.images, policy.skip, "image", "data.on_bad_image=skip goes on without these images."),
        (
            problems.boxes,
            policy.drop,
            "annotation",
            f"{policy.drop_option}=drop goes on without these annotations.",
        ),
    )
    parts = []
    for findings, forgiven, noun, remedy in kinds:
        if not findings.count:
            continue
        head = f"{findings.count} {noun} problem{'s' if findings.count > 1 else ''}"
        if forgiven:
            _log.warning("%s: left out because of %s:\n%s", source, head, findings.text())
        else:
            parts.append("\n".join(filter(None, [f"{head}:", findings.text(), remedy])))
    if parts:
        raise ValueError(f"{source}: " + "\n".join(parts))
