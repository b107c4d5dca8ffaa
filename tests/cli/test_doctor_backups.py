"""Doctor and backups: the database and every place are tried, and left as they were."""

from __future__ import annotations

import json
import socket

from terminal import aion

TEXT = """
[server]
listen = "127.0.0.1:0"
[health]
controls = []
[backends.gone]
kind = "static"
url = "http://127.0.0.1:9"
[backups.main]
schedule = "0 3 * * *"
dsn = {{ credential = "pg" }}
copies = ["file:{good}", "file:{bad}/under"]
"""


def test_a_place_that_can_be_written_passes_and_what_cannot_be_reached_says_why(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    bad.write_text("a file, where a folder is needed")
    (tmp_path / "aion.toml").write_text(TEXT.format(good=good, bad=bad))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ran = aion(
            "doctor",
            "--json",
            cwd=tmp_path,
            STATE_DIRECTORY=str(tmp_path / "state"),
            AION_CREDENTIAL_PG=f"postgresql://u:cnry-secret@127.0.0.1:{port}/d",
        )
    assert ran.code == 1
    assert "cnry-secret" not in ran.out + ran.err
    found = [one for one in json.loads(ran.out) if one["subject"] == "backup main"]
    outcome = {one["text"].partition(": ")[0]: one["outcome"] for one in found}
    assert outcome["database"] == "FAILED"
    assert outcome[f"file:{bad}/under"] == "FAILED"
    assert [one["outcome"] for one in found if str(good) in one["text"]] == ["PASSED", "PASSED"]
    assert not [path for path in good.rglob("*") if path.is_file()]
