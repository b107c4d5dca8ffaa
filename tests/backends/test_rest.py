"""Asking a provider's REST interface: what was not done, and of what nobody knows."""

import asyncio

import pytest

from backends import rest
from backends.runpod import REFUSALS
from orchestrator.core.powering import Snag
from tests.backends.worlds import HandClock, TableHttp, reply

KEY = "s3cret-0123456789"


def asked(answer, *, write=False, harmless=False):
    one = rest.Rest(TableHttp({"/x": answer}), HandClock(), "http://127.0.0.1:1", KEY, REFUSALS)
    call = one.write("POST", "/x", {}, harmless=harmless) if write else one.read("/x")
    return asyncio.run(call)


@pytest.mark.parametrize(
    ("answer", "read", "write"),
    [
        (reply(200, {}), Snag.NONE, Snag.NONE),
        (reply(401, {"error": "no"}), Snag.DENIED, Snag.DENIED),
        (reply(403, "<html>no</html>"), Snag.DENIED, Snag.DENIED),
        (reply(400, {"error": "invalid input"}), Snag.DENIED, Snag.DENIED),
        (reply(402, {}), Snag.QUOTA, Snag.QUOTA),
        (reply(429, {}), Snag.TRANSIENT, Snag.TRANSIENT),
        (reply(500, {"error": "oops"}), Snag.TRANSIENT, Snag.LOST),
        (reply(502, "<html></html>"), Snag.TRANSIENT, Snag.LOST),
        (reply(302, "", {"location": "/y"}), Snag.TRANSIENT, Snag.LOST),
        ("timed out after 45 s", Snag.TRANSIENT, Snag.LOST),
        ("connection refused", Snag.TRANSIENT, Snag.LOST),
    ],
)
def test_a_question_without_an_answer_may_be_asked_again_and_a_change_is_not_known(
    answer, read, write
):
    assert asked(answer).snag is read
    assert asked(answer, write=True).snag is write
    assert asked(answer, write=True, harmless=True).snag is read


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("words", "snag"),
    [
        # runpod/runpod-python #168
        (
            "start pod: There are not enough free GPUs on the host machine to start this pod.",
            Snag.STOCKOUT,
        ),
        # runpod/runpod-python #21, dstackai/dstack #1740
        (
            "There are no longer any instances available with the requested specifications.",
            Snag.STOCKOUT,
        ),
        ("create pod: There are no instances currently available", Snag.STOCKOUT),
        ("INSUFFICIENT_BALANCE", Snag.QUOTA),
        ("Insufficient balance", Snag.QUOTA),
    ],
)
def test_what_a_provider_says_counts_before_the_status_it_gives_that(status, words, snag):
    for body in (
        {"error": words, "status": status},
        [{"error": words}],
        {"errors": 1, "msg": words},
    ):
        assert asked(reply(status, body), write=True).snag is snag


def test_when_to_come_back_is_told_and_the_key_is_not():
    said = asked(reply(429, {"error": f"key {KEY} asks too often"}, {"retry-after": "7"}))
    report = said.report()
    assert (report.retry_after_s, report.snag) == (7.0, Snag.TRANSIENT)
    assert KEY not in repr(said.report())
    assert report.detail == "HTTP 429: key … asks too often"


def test_a_404_is_only_believed_of_a_provider_itself():
    assert asked(reply(404, {"error": "pod not found"})).missing
    assert not asked(reply(404, "<html>nginx</html>")).missing


@pytest.mark.parametrize("wrong", ["http://rest.example.org", "ftp://x", "https://me:pw@x", "x"])
def test_a_key_travels_by_https_or_not_at_all(wrong):
    with pytest.raises(ValueError, match=r"https|begin|start|user"):
        rest.api_address(wrong)
    for fine in ("https://rest.example.org/v1/", "http://127.0.0.1:8080", "http://localhost:1"):
        assert rest.api_address(fine) == fine.rstrip("/")


@pytest.mark.parametrize(
    ("name", "label", "after"),
    [
        ("my pod", "aion-home-gpu-7", "my pod aion-home-gpu-7"),
        ("my pod aion-home-gpu-6", "aion-home-gpu-7", "my pod aion-home-gpu-7"),
        ("my pod aion-home-gpu-7", "", "my pod"),
        ("my pod", "", "my pod"),
        ("", "aion-home-gpu-7", "aion-home-gpu-7"),
        (None, "aion-home-gpu-7", "aion-home-gpu-7"),
        ("aion-box", "aion-home-gpu-7", "aion-box aion-home-gpu-7"),
    ],
)
def test_a_label_is_the_last_word_of_a_name_and_comes_off_again(name, label, after):
    assert rest.labelled(name, label) == after
    assert rest.label_in(after) == label
