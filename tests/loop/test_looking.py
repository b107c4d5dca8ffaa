"""Is it us, and are we seen from outside: the controls and the public names."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from orchestrator.core.events import ControlsAnswered, Flagged, NameChecked
from orchestrator.edge.controls import Controls
from orchestrator.edge.names import Names
from tests.loop.kit import Clock, Http, in_virtual_time

FOUR = ("https://one", "https://two", "https://three", "https://four")


@pytest.mark.parametrize(
    ("answers", "failed", "within_s"),
    [
        ((200, 204, 301, 500), 0, 0.0),  # any answer at all means that our network works
        ((200, 200, 200, "hang"), 0, 0.0),  # one that hangs decides nothing
        (("refused", 200, 403, 200), 1, 0.0),
        (("refused", "timed out", 200, 200), 2, 0.0),
        (("refused",) * 4, 4, 0.0),
    ],
)
def test_the_controls_answer_as_soon_as_it_is_decided(answers, failed, within_s):
    async def go():
        heard = []
        http = Http(**dict(zip(("one", "two", "three", "four"), answers, strict=True)))
        controls = Controls(FOUR, http=http, clock=Clock(), report=heard.append)
        began = asyncio.get_running_loop().time()
        controls.ask()
        controls.ask()  # a question under way is not asked twice
        async with asyncio.timeout(2.9):
            await controls._task
        assert asyncio.get_running_loop().time() - began <= within_s
        assert [(one.failed, one.total) for one in heard] == [(failed, 4)]
        assert isinstance(heard[0], ControlsAnswered)
        assert {method for method, _ in http.asked} == {"HEAD"}
        assert len(http.asked) == 4
        controls.configure(FOUR[:1])
        http.answers = {"one": 200}
        controls.ask()
        await controls._task
        assert heard[1].total == 1
        await controls.close()

    in_virtual_time(go())


@pytest.mark.parametrize("order", sorted(set(itertools.permutations((200, 200, 0, 0)))))
def test_two_that_fail_are_counted_whoever_answers_first(order):
    async def go():
        heard = []
        answers = (answer or "refused" for answer in order)
        http = Http(**dict(zip(("one", "two", "three", "four"), answers, strict=True)))
        controls = Controls(FOUR, http=http, clock=Clock(), report=heard.append)
        controls.ask()
        await controls._task
        assert [(one.failed, one.total) for one in heard] == [(2, 4)]

    in_virtual_time(go())


def test_no_controls_is_an_answer_too():
    async def go():
        heard = []
        controls = Controls((), http=Http(), clock=Clock(), report=heard.append)
        controls.ask()
        await controls._task
        assert (heard[0].failed, heard[0].total) == (0, 0)

    in_virtual_time(go())


def test_a_question_under_way_is_given_up_at_the_end():
    async def go():
        heard = []
        controls = Controls(FOUR[:1], http=Http(one="hang"), clock=Clock(), report=heard.append)
        controls.ask()
        await asyncio.sleep(0.1)
        await controls.close()
        assert heard == []

    in_virtual_time(go())


def test_a_service_is_asked_for_through_its_name():
    async def go():
        heard = []
        http = Http(well=404, broken=503, gone="name not found")
        addresses = {"a": "https://well/", "b": "https://broken/", "c": "https://gone/", "d": None}
        names = Names(http=http, address_of=addresses.get, report=heard.append)
        for service in addresses:
            names.check(service)
        await asyncio.gather(*names._tasks)
        told = {one.service: (one.ok, one.detail) for one in heard}
        assert all(isinstance(one, NameChecked) for one in heard)
        assert told["a"] == (True, "")
        assert told["b"] == (False, "HTTP 503")
        assert told["c"] == (False, "name not found")
        assert told["d"][0]
        await names.close()

    in_virtual_time(go())


def test_our_own_name_is_doubted_only_after_two_failures_in_a_row():
    async def go():
        heard = []
        http = Http(us=502)
        names = Names(http=http, address_of=lambda _: None, report=heard.append)
        url = "https://us/healthz"
        assert not await names.reached(url)
        assert heard == []
        assert not await names.reached(url)
        assert heard == [Flagged("name_unreachable", url, "HTTP 502")]
        http.answers["us"] = 200
        assert await names.reached(url)
        assert heard[-1] == Flagged("name_unreachable", url, "")

    in_virtual_time(go())
