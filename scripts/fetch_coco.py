"""Download COCO 2017 and unpack it where `detector train data=coco data.root=FOLDER` finds it.

    python scripts/fetch_coco.py data/coco [--only val2017.zip annotations_trainval2017.zip]

About 20 GB, and as much again unpacked. Run it again after an interruption: it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from download import download, unpack
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

SERVER = "http://images.cocodataset.org"
MD5 = {
    "annotations/annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
    "zips/val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "zips/train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
}


def main() -> None:
    names = [Path(path).name for path in MD5]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default=SERVER, help="a mirror with the same paths")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as bar:
        for path, md5 in MD5.items():
            archive = arguments.folder / "archives" / Path(path).name
            if archive.name not in arguments.only:
                continue
            task = bar.add_task(archive.name, total=None)
            download(
                f"{arguments.server}/{path}",
                archive,
                md5=md5,
                progress=lambda done, total, task=task: bar.update(task, completed=done, total=total),
            )
            unpack(archive, arguments.folder)


if __name__ == "__main__":
    main()
