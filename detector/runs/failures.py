"""Helpful messages for failures of a machine under load: memory, loader processes, open files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from detector.data.datamodule import DetectionDataModule
from detector.exceptions import RunError, out_of_memory_message

_SHOWN_IMAGES = 8


@contextmanager
def explained(data: DetectionDataModule, *, batch_option: str, lower: Sequence[str]) -> Iterator[None]:
    """Turn torch's errors for lack of resources, raised while batches run inside, into a RunError.

    `batch_option` is the name of the batch size option of `data`; `lower` lists other options that save
    memory when lowered.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        text = _memory_message(error, data, batch_option, lower) or _worker_message(str(error), data)
        if text is None or isinstance(error, RunError):
            raise
        raise RunError(text) from error


def _memory_message(
    error: Exception, data: DetectionDataModule, batch_option: str, lower: Sequence[str]
) -> str | None:
    reason = out_of_memory_message(error)
    if reason is None:
        return None
    size = data.image_size
    options = [f"data.{batch_option}", "data.image_size.min_size and .max_size", *lower]
    return (
        f"{reason}, for a batch of data.{batch_option}={getattr(data, batch_option)} images whose sides are "
        f"resized to data.image_size.min_size={size.min_size} and at most max_size={size.max_size}. "
        f"Lower {', or '.join(options)}."
    )


def _worker_message(text: str, data: DetectionDataModule) -> str | None:
    if "DataLoader timed out" in text:
        return (
            f"The loader's {data.num_workers} processes gave no batch for data.worker_timeout_s="
            f"{data.worker_timeout_s} seconds. Raise it where reading is that slow; data.num_workers=0 "
            "loads in the main process and shows what hangs."
        )
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return _dead_worker_message(text, data)
    if any(words in text for words in ("Too many open files", "received 0 items of ancdata")):
        return (
            f"Too many files are open ({text.splitlines()[-1]}). Raise the limit (ulimit -n 4096), or load "
            "with fewer processes: data.num_workers=0 needs none."
        )
    return None


def _dead_worker_message(text: str, data: DetectionDataModule) -> str:
    match = re.search(r"pid(?:\(s\))? ([\d, ]+)", text)
    process_ids = re.findall(r"\d+", match[1]) if match else []
    images = [image for number in process_ids for image in data.images_of_worker(int(number))]
    more = f" and {len(images) - _SHOWN_IMAGES} more" if len(images) > _SHOWN_IMAGES else ""
    at = f" It read the images {', '.join(images[:_SHOWN_IMAGES])}{more}." if images else ""
    signal = text.partition("killed by signal: ")[2].partition(".")[0].strip()
    if signal == "Killed":
        why = " The kernel does so where memory runs out (see dmesg)."
    else:
        why = " A decoder may have failed on one of them: data.check_images=decode looks at each before."
    return (
        f"A loader process ended{f' (signal: {signal})' if signal else ''}.{at}{why} Fewer processes need "
        "less memory: lower data.num_workers; data.num_workers=0 loads in the main process."
    )
