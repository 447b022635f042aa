"""MovieLens-100K, read from the wheel of RecBole 1.2.1, which contains it.

The wheel is downloaded with pip, checked against a pinned SHA-256, kept in ``$HEADWATER_CACHE`` (default
``~/.cache/headwater``) and read as a zip file; nothing is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

PACKAGE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
DATA_PREFIX = "recbole/dataset_example/ml-100k/ml-100k."
EVENT_OF = {1: "rating", 2: "rating", 3: "view", 4: "rating", 5: "purchase"}
"""The event type on the demo's site for an interaction with this many stars."""


class DemoError(Exception):
    """The demo cannot continue; one sentence says why and what to do."""


class Film(NamedTuple):
    item_id: str
    title: str
    category: str
    text: str


class Interaction(NamedTuple):
    """One rating of MovieLens. ``time`` is aware UTC: MovieLens's own time until ``plan`` shifts it."""

    user: str
    film: str
    stars: int
    time: datetime

    @property
    def event_type(self) -> str:
        return EVENT_OF[self.stars]


def cache_folder() -> Path:
    """The folder that keeps the wheel between demos."""
    return Path(os.environ.get("HEADWATER_CACHE") or Path.home() / ".cache" / "headwater")


def fetch(cache: Path) -> Path:
    """The pinned wheel, from the cache or through pip. Raises DemoError if it cannot be downloaded or its digest differs."""
    kept = cache / WHEEL
    if kept.exists() and _digest(kept) == SHA256:
        return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            downloaded = _download(Path(scratch))
            if _digest(downloaded) != SHA256:
                raise DemoError(f"{WHEEL} from your package index is not the pinned one (SHA-256 differs); not used")
            os.replace(downloaded, kept)
    except OSError as error:
        raise DemoError(f"the cache {cache} cannot be written ({error.strerror}); set HEADWATER_CACHE") from None
    return kept


def _download(folder: Path) -> Path:
    """Try each available pip, because an environment made by uv has none of its own."""
    base = getattr(sys, "_base_executable", sys.executable)
    pips = [[sys.executable, "-m", "pip"], [base, "-m", "pip"], ["python3", "-m", "pip"], ["uvx", "pip"]]
    problem = "no pip found"
    for pip in pips:
        if shutil.which(pip[0]) is None:
            continue
        command = [*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), PACKAGE]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = f"pip did not finish ({type(error).__name__})"
            continue
        wheel = folder / WHEEL
        if finished.returncode == 0 and wheel.exists():
            return wheel
        lines = [line for line in finished.stderr.splitlines() if "error" in line.lower()]
        if lines and "No module named pip" not in finished.stderr:
            problem = re.sub(r"\w+://\S+", "the index", lines[-1])[:200]
    raise DemoError(f"{PACKAGE}, which holds MovieLens-100K, cannot be downloaded with pip: {problem}")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_movielens(wheel: Path) -> tuple[list[Interaction], list[Film]]:
    """Interactions sorted by time, user and film, and all films, read from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        ratings = _table(archive.read(DATA_PREFIX + "inter").decode())
        films = _table(archive.read(DATA_PREFIX + "item").decode())
    interactions = [
        Interaction(f"u{user}", film, int(float(stars)), datetime.fromtimestamp(int(float(time)), UTC))
        for user, film, stars, time in ratings
    ]
    catalogue = [Film(item, title, genres.split()[0], f"{year}. {genres}") for item, title, year, genres in films]
    return sorted(interactions, key=lambda i: (i.time, i.user, i.film)), catalogue


def _table(text: str) -> Iterator[list[str]]:
    lines = iter(text.splitlines())
    next(lines)  # the header: names with types, such as user_id:token
    return (line.split("\t") for line in lines)
