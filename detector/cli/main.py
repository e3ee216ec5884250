"""The `detector` command: a verb, then overrides of that verb's configuration in Hydra's grammar.

Heavy modules are imported only once it is known that there is something to do.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from detector.cli.streams import keep_writing
from detector.config.foreign_words import VERBS as FOREIGN_VERBS
from detector.exceptions import Terminated, exit_code, interrupted
from detector.version import __version__

WRONG_USE = 2
_ECHO_S = 1.0
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@dataclass(frozen=True)
class Verb:
    """A verb: `name` is also that of configs/<name>.yaml; `module` has `run` and `Options`, its keys."""

    name: str
    module: str
    summary: str


VERBS = {
    verb.name: verb
    for verb in (
        Verb("train", "detector.commands.train", "train a detector; with no override on generated data"),
        Verb("evaluate", "detector.commands.evaluate", "COCO metrics of a checkpoint or a results file"),
        Verb(
            "compare", "detector.commands.compare", "variants x seeds, and whether their difference is real"
        ),
        Verb("predict", "detector.commands.predict", "boxes in images, drawn and as files"),
        Verb(
            "export", "detector.commands.export", "a detector as one file (ONNX), checked against the model"
        ),
        Verb("info", "detector.commands.info", "parameters, feature levels and deformable layers of a model"),
    )
}


def command() -> NoReturn:
    """Run `main` as the process `detector`, and exit with its code."""
    keep_writing()
    code = main()
    # Exit at once: libraries would wait for their threads and log, and those connected to a lost device would
    # abort the process.
    if code not in (0, WRONG_USE):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main() -> int:
    """Run the verb in `sys.argv` and return the exit code.

    It is 0, 1 (failed), 2 (wrong use), 130 (Ctrl-C), 143 (SIGTERM), or 128 plus the number of another signal.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["help"] and arguments[1:2]:  # detector help train data
        arguments = [arguments[1], "--help", *arguments[2:]]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if "--version" in arguments:
        print(f"detector {__version__}")
        return 0
    if arguments[0] == "completion":
        return completion(arguments[1:])
    if arguments[0] not in VERBS:
        print(f"detector: {unknown_verb(arguments[0])}", file=sys.stderr)
        return WRONG_USE
    with _signals_raised():
        try:
            from detector.cli.jobs import run_verb

            verb = VERBS[arguments[0]]
            return run_verb(verb.name, verb.module, verb.summary, arguments[1:])
        except KeyboardInterrupt as interrupt:
            print(f"\n{interrupted(interrupt)}.", file=sys.stderr)
            return exit_code(interrupt)


def completion(words: list[str]) -> int:
    """Print the script of a shell, or for `--query LINE`, which the script calls, its completions."""
    from detector.cli.completion import SCRIPTS, candidates
    from detector.config.paths import config_dir

    if len(words) == 2 and words[0] == "--query":
        verbs = {verb.name: verb.module for verb in VERBS.values()}
        print("\n".join(candidates(words[1], verbs=verbs, folder=config_dir())))
        return 0
    if len(words) == 1 and words[0] in SCRIPTS:
        print(SCRIPTS[words[0]], end="")
        return 0
    print(
        f"detector completion: expected one of {', '.join(SCRIPTS)}, got {' '.join(words)!r}", file=sys.stderr
    )
    return WRONG_USE


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Within this context, raise Terminated on signals that would end the process silently.

    SIGINT raises KeyboardInterrupt. A signal within a second of another is ignored as its echo: timeout(1)
    and schedulers signal a process and its group. Ignored signals stay ignored: nohup(1) ignores SIGHUP, and
    shells ignore SIGINT for background processes.
    """
    last = -_ECHO_S

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= _ECHO_S:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]  # Windows lacks some
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def usage() -> str:
    verbs = "\n".join(f"  {verb.name:<10} {verb.summary}" for verb in VERBS.values())
    return f"""detector {__version__}: object detection with deformable convolution, on COCO-format data

usage: detector VERB [key=value ...]

{verbs}
  completion tab completion for bash, zsh or fish: eval "$(detector completion bash)"

detector VERB --help lists the options of a verb, detector VERB --cfg job prints its configuration.
"""


def unknown_verb(word: str) -> str:
    if word.startswith("-") or "=" in word:
        return f"the verb comes first: detector VERB {word} ... Verbs: {', '.join(VERBS)}"
    match = difflib.get_close_matches(word, VERBS, n=1)
    verb = FOREIGN_VERBS.get(word) or (match[0] if match else None)
    hint = f"Did you mean {verb}?" if verb else f"Verbs: {', '.join(VERBS)}"
    return f"there is no verb {word!r}. {hint}"
