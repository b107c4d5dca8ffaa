"""The notebook that `aion notebook` writes, run by a real kernel against a real daemon."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.kit import _environment, until

TOKEN = "notebook-token-0123456789-abcdefghijklmnop"
HOST = "127.8.7.6"  # loopback too, and nobody else's port 8766


@pytest.fixture
def written(world, tmp_path):
    """A daemon that waits for a notebook, an engine for it, and the notebook as written."""
    engine = world.start("engine")
    world.tables["backends.here"] = {
        "kind": "notebook",
        "engine": "openai",
        "models": ["demo-model"],
        "allow_private": True,
        "allow_hosts": [HOST],
        "token": {"credential": "here_token"},
        "session": "12h",
        "keepalive": {"every": "4m"},
    }
    world.tables["services.chat"] = {"backends": ["here"]}
    world.credentials["here_token"] = TOKEN
    world.server["public_url"] = world.url
    world.boot(wait=False)
    until(lambda: world.http.get("/healthz").status_code == 200, "the daemon answers")
    path = tmp_path / "here.ipynb"
    ran = world.aion("notebook", "here", "--output", str(path))
    assert ran.returncode == 0, ran.stderr
    assert TOKEN not in path.read_text() + ran.stdout + ran.stderr
    env = {
        "AION_TOKEN": TOKEN,
        "AION_ENGINE_URL": f"http://127.0.0.1:{engine}",
        "AION_STATE": str(tmp_path / "agent"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    return nbformat.read(path, as_version=4), _environment(**env)


def output(book) -> str:
    cell = next(one for one in book.cells if one.cell_type == "code")
    return "".join(one.get("text", "") or str(one) for one in cell.outputs)


def test_the_notebook_serves_until_its_cell_is_interrupted(world, written):
    book, env = written

    async def whole() -> None:
        client = NotebookClient(book, timeout=None, kernel_name="python3")
        running = asyncio.create_task(client.async_execute(env=env))
        try:
            serves = asyncio.to_thread(world.serves, "here", 60.0)
            done, _ = await asyncio.wait(
                [running, asyncio.ensure_future(serves)], return_when=asyncio.FIRST_COMPLETED
            )
            assert running not in done, output(book)
            for one in done:
                found = one.result()
            assert found["active"]["url"] == f"http://{HOST}:8766"
            assert found["active"]["models"] == ["demo-model"]
            await client.km.interrupt_kernel()
            await asyncio.wait_for(running, 60.0)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(whole())
    assert "keepalive" in world.aion("job", "list").stdout
    assert TOKEN not in output(book) + world.log()
    until(lambda: world.active() is None, "a notebook that left serves no more")
