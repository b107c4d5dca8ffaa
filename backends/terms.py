"""What the hosts of notebooks forbid, said wherever it matters: notebook, doctor, prose."""

from __future__ import annotations

from typing import Final, NamedTuple

COLAB: Final = "colab"
KAGGLE: Final = "kaggle"
COLAB_LINK: Final = "colab.research.google.com"


class Terms(NamedTuple):
    """The terms of one host: what they say, where to read them, and what follows from it."""

    text: str
    link: str
    advice: str


_TERMS: Final = {
    COLAB: Terms(
        "Google's FAQ forbids, on Colab's managed runtimes, web services unrelated to"
        " interactive computing, remote proxies and the use of several accounts",
        "https://research.google.com/colaboratory/faq.html",
        "read it before you rely on Colab; a local or paid dedicated runtime is another matter",
    ),
    KAGGLE: Terms(
        "Kaggle's notebooks are for data science, with a weekly quota of GPU hours for each person;"
        " its terms decide whether serving from them is allowed, and several accounts are not",
        "https://www.kaggle.com/terms",
        "read them before you rely on Kaggle; aion never pretends to be at work there",
    ),
}


def of(platform: str, restart_url: str | None = None) -> Terms | None:
    """Return the terms of where a notebook runs, None where there are none to mind."""
    if platform not in _TERMS and COLAB_LINK in (restart_url or ""):
        platform = COLAB
    return _TERMS.get(platform)
