import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.edge.runners import in_thread, inline
from orchestrator.edge.store import Store

T = TypeVar("T")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "aion.db"


@pytest.fixture(params=[inline, in_thread], ids=["inline", "thread"])
def runner(request):
    return request.param


@pytest.fixture
def using() -> Callable[..., Any]:
    """using(path, work) opens a store, awaits work(store, saved), closes it, returns the result."""

    def use(path: Path, work: Callable[..., Coroutine[Any, Any, T]], run=inline, **options) -> T:
        async def go() -> T:
            store = Store(f"sqlite:///{path}", run(), **{"create": True} | options)
            saved = await store.load()
            try:
                return await work(store, saved)
            finally:
                await store.close()

        return asyncio.run(go())

    return use
