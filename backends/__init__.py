"""The kinds of backend, imported on first use: name → module with `Options` and `Driver`."""

from typing import Final

KINDS: Final[dict[str, str]] = {
    "static": "backends.static",
    "api": "backends.api",
    "fake": "backends.fake",
}

PLANNED: Final[frozenset[str]] = frozenset(
    {"notebook", "kaggle", "gce", "runpod", "vast", "libcloud", "colab", "command"}
)
"""Kinds that a later version brings: named so that a configuration that uses them is told so."""
