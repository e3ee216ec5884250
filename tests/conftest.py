"""Every test runs with the shapes in signatures checked."""

from jaxtyping import install_import_hook

install_import_hook("detector", "beartype.beartype")
