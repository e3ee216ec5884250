"""Hydra, prepared to compose outside of its own command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from detector.config.paths import config_dir


@contextmanager
def loaded(folder: str | None) -> Iterator[None]:
    """Prepare Hydra to compose, with the user's `folder` first, as its own command line does."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        if folder:
            path = deepcopy(GlobalHydra.instance().config_loader().get_search_path())
            path.prepend("command-line", f"file://{Path(folder).absolute()}", SearchPathQuery("schema", None))
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2("detector", path)  # the earlier instance does not follow its path
        yield


@contextmanager
def composed_alone(name: str, overrides: Sequence[str], *, folder: str | None) -> Iterator[DictConfig]:
    """Compose configs/<name>.yaml as Hydra's command line would, which this leaves as it was.

    Within this context, interpolations of Hydra's own values resolve.
    """
    hydra_config = HydraConfig.instance()
    with loaded(folder):
        cfg = compose(name, overrides=[*overrides], return_hydra_config=True)
        before = hydra_config.cfg
        hydra_config.set_config(cfg)
        try:
            with open_dict(cfg):
                del cfg["hydra"]
            yield cfg
        finally:
            hydra_config.cfg = before
