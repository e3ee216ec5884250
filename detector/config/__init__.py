"""Configurations: where they lie, whether they are right, and the objects they describe."""

from detector.config.build import build
from detector.config.check import check
from detector.config.defaults import with_defaults
from detector.config.errors import ConfigError
from detector.config.paths import config_dir
from detector.config.plain import resolved
from detector.config.recorded import with_environment, without_environment
from detector.config.targets import allowing

__all__ = [
    "ConfigError",
    "allowing",
    "build",
    "check",
    "config_dir",
    "resolved",
    "with_defaults",
    "with_environment",
    "without_environment",
]
