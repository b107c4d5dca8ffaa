"""The Cloudflare provider, by its real SDK, against a stand-in that is as strict as the real one."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from orchestrator.core.model import Publication
from orchestrator.core.records import Place, Record, Verdict, plan
from orchestrator.core.specs import Target
from orchestrator.edge.dns import open_provider
from orchestrator.errors import BadReply, ConfigError, NotAllowed, Throttled, Unreachable
from tests.edge.dns.world import A1, A2, ALIAS, NAME, cloudflare_settings
from tests.standins.cloudflare import ROOT, CloudflareStandin, Faults, paged

PLACE = Place(name=NAME, zone="example.org", instance="home", proxied=False)


class Unfiltered(CloudflareStandin):
    """Lists the whole zone, whatever it is asked for."""

    async def _list(self, request):
        return paged(request, list(self._zone(request).records.values()), largest=100)


def with_standin(scenario, **settings):
    async def run():
        async with CloudflareStandin(("example.org", "other.example")) as standin:
            standin.sees = {"example.org"}
            provider = open_provider(cloudflare_settings(standin, **settings))
            try:
                await scenario(standin, provider)
            finally:
                await provider.close()

    asyncio.run(run())


def publishing(*targets, epoch=1, **more):
    return Publication(wanted=targets, wanted_epoch=epoch, adopt=True, **more)


async def put(provider, *targets, epoch=1, place=PLACE):
    found = await provider.read(NAME)
    done = plan(found, publishing(*targets, epoch=epoch), place, 0.0)
    await provider.apply(NAME, done)
    return done


def test_what_is_written_is_read_back_and_resolves():
    async def scenario(standin, provider):
        assert await provider.read(NAME) == []
        await put(provider, A1)
        (record,) = await provider.read(NAME)
        assert record == Record(
            record.id, "A", "192.0.2.1", "aion home epoch=1", ttl=1, proxied=False
        )
        await put(provider, A2, epoch=2)
        (moved,) = await provider.read(NAME)
        assert (moved.id, moved.content) == (record.id, "192.0.2.2")

    with_standin(scenario)


def test_one_change_alone_is_a_post_then_a_patch_of_the_same_record():
    async def scenario(standin, provider):
        await put(provider, A1)
        await put(provider, A2, epoch=2)
        first, second = (line["path"].rsplit("/", 1)[1] for line in standin.journal)
        assert (first, second) == ("dns_records", standin.held(NAME)[0]["id"])
        assert len(standin.held(NAME)) == 1

    with_standin(scenario)


@pytest.mark.parametrize(
    "steps",
    [
        [(A1,), (ALIAS,), (A2,)],
        [(A1, Target("AAAA", "2001:db8::1")), (ALIAS,)],
        [(ALIAS,), (A1, A2)],
    ],
)
def test_a_change_of_type_is_one_batch(steps):
    async def scenario(standin, provider):
        for epoch, targets in enumerate(steps, start=1):
            await put(provider, *targets, epoch=epoch)
            held = {(r["type"], r["content"]) for r in standin.held(NAME)}
            assert held == {(t.type, t.content) for t in targets}
        first, *later = (line["path"].rsplit("/", 1)[1] for line in standin.journal)
        assert first == ("dns_records" if len(steps[0]) == 1 else "batch")
        assert later == ["batch"] * (len(steps) - 1)

    with_standin(scenario)


def test_records_at_other_names_and_of_other_types_are_neither_read_nor_touched():
    async def scenario(standin, provider):
        standin.by_hand("www.example.org", "A", "198.51.100.1")
        standin.by_hand(NAME, "TXT", '"hello"')
        await put(provider, A1)
        assert {r.type for r in await provider.read(NAME)} == {"A", "TXT"}
        assert len(standin.held("www.example.org")) == 1
        assert {r["type"] for r in standin.held(NAME)} == {"A", "TXT"}

    with_standin(scenario)


def test_records_of_other_names_are_passed_over_even_if_they_are_shown():
    """Should the filter ever be ignored, names that end in ours are still not ours."""

    async def run():
        async with Unfiltered() as standin:
            for n, name in enumerate((NAME, f"x.{NAME}", f"x{NAME}", "example.org")):
                standin.by_hand(name, "A", f"198.51.100.{n}")
            provider = open_provider(cloudflare_settings(standin))
            assert [record.content for record in await provider.read(NAME)] == ["198.51.100.0"]
            await provider.close()

    asyncio.run(run())


def test_more_records_than_a_page_are_all_read():
    async def scenario(standin, provider):
        for n in range(230):
            standin.by_hand(NAME, "TXT", f'"{n}"')
        assert len(await provider.read(NAME)) == 230

    with_standin(scenario)


FAULTS = [
    (Faults("throttle", retry_after="300"), Throttled, "300"),
    (Faults("throttle", retry_after=None), Throttled, "300"),
    (Faults("unsuccessful"), BadReply, "1001"),
    (Faults("html"), BadReply, "JSON"),
    (Faults("error"), BadReply, "10001"),
    (Faults("reset"), Unreachable, "reached"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f[0].kind)
@pytest.mark.parametrize("on", ["read", "write"])
def test_every_fault_is_an_error_of_ours_and_never_an_empty_name(fault, on):
    async def scenario(standin, provider):
        await put(provider, A1)
        done = plan(await provider.read(NAME), publishing(A2, epoch=2), PLACE, 0.0)
        asked = len(standin.requests)
        standin.faults = replace(fault[0], on=on)
        with pytest.raises(fault[1], match=fault[2]) as caught:
            await (provider.read(NAME) if on == "read" else provider.apply(NAME, done))
        assert "\n" not in str(caught.value)
        assert standin.token not in str(caught.value)
        assert len(standin.requests) == asked + 1  # the SDK repeats nothing
        assert [r["content"] for r in standin.held(NAME)] == ["192.0.2.1"]
        if isinstance(caught.value, Throttled):
            assert caught.value.retry_after_s == 300.0
        standin.faults = Faults()
        assert len(await provider.read(NAME)) == 1

    with_standin(scenario)


def test_a_record_that_cannot_stand_there_is_refused_with_cloudflares_reason():
    async def scenario(standin, provider):
        done = plan([], publishing(ALIAS), PLACE, 0.0)
        standin.by_hand(NAME, "A", "198.51.100.1")
        with pytest.raises(BadReply, match="81053") as caught:
            await provider.apply(NAME, done)
        assert caught.value.status == 400
        twice = plan([], publishing(Target("A", "198.51.100.1")), PLACE, 0.0)
        with pytest.raises(BadReply, match="81058"):
            await provider.apply(NAME, twice)

    with_standin(scenario)


def test_a_failed_batch_changes_nothing():
    async def scenario(standin, provider):
        await put(provider, A1)
        found = await provider.read(NAME)
        done = plan(found, publishing(A2, Target("AAAA", "2001:db8::1"), epoch=2), PLACE, 0.0)
        standin.by_hand(NAME, "AAAA", "2001:db8::1")
        with pytest.raises(BadReply):
            await provider.apply(NAME, done)
        assert {r["content"] for r in standin.held(NAME)} == {"192.0.2.1", "2001:db8::1"}

    with_standin(scenario)


def test_a_refused_token_is_said_so():
    async def scenario(_, provider):
        with pytest.raises(NotAllowed, match="9109"):
            await provider.read(NAME)
        (finding,) = await provider.check_token()
        assert not finding.ok

    with_standin(scenario, token="another-token-that-is-not-known-there")


def test_a_token_for_another_zone_is_said_so():
    async def scenario(standin, provider):
        standin.sees = {"other.example"}
        with pytest.raises(NotAllowed, match=r"does not see the zone example\.org"):
            await provider.read(NAME)

    with_standin(scenario)


@pytest.mark.parametrize(
    ("sees", "status", "ok"),
    [
        ({"example.org"}, "active", True),
        ({"example.org", "other.example"}, "active", False),
        ({"other.example"}, "active", False),
        ({"example.org"}, "disabled", False),
    ],
)
def test_the_doctor_wants_a_token_for_this_zone_and_no_other(sees, status, ok):
    async def scenario(standin, provider):
        standin.sees, standin.status = sees, status
        findings = await provider.check_token()
        assert all(f.ok for f in findings) is ok
        assert all(f.ok or f.remedy for f in findings)
        assert standin.journal == []  # never by test-writing
        assert {method for method, _ in standin.requests} == {"GET"}

    with_standin(scenario)


def test_keys_in_the_environment_do_not_take_the_tokens_place(monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "me@example.org")
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "0123456789")

    async def scenario(_, provider):
        assert await provider.read(NAME) == []

    with_standin(scenario)


def test_the_sdk_is_imported_only_where_it_is_configured():
    heavy = "{'cloudflare', 'httpx', 'dns'} & set(sys.modules)"
    code = f"import sys, orchestrator.edge.dns.reconciler; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_and_writing_never_import_the_models_of_every_record_type():
    """They are 10 MB of the daemon's memory."""
    code = """
import asyncio, sys
from orchestrator.edge.dns import open_provider
from tests.edge.dns.world import NAME, cloudflare_settings
from tests.standins.cloudflare import CloudflareStandin

async def run():
    async with CloudflareStandin() as standin:
        provider = open_provider(cloudflare_settings(standin))
        await provider.read(NAME)
        await provider.check_token()
        await provider.close()

asyncio.run(run())
sys.exit("cloudflare.types.dns" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_an_unknown_provider_is_a_configuration_error():
    async def run():
        async with CloudflareStandin() as standin:
            with pytest.raises(ConfigError, match="cloudflare, dyndns2"):
                open_provider(cloudflare_settings(standin, provider="bind"))

    asyncio.run(run())


def test_secrets_are_not_shown_with_the_settings():
    async def run():
        async with CloudflareStandin() as standin:
            assert standin.token not in repr(cloudflare_settings(standin))

    asyncio.run(run())


def test_a_proxied_record_hides_its_content_and_has_automatic_ttl():
    async def scenario(standin, provider):
        place = replace(PLACE, proxied=True, ttl=120)
        await put(provider, A1, place=place)
        (record,) = await provider.read(NAME)
        assert (record.ttl, record.proxied) == (1, True)
        known = publishing(A1, attempted=(A1,), attempted_epoch=1)
        again = plan([record], known, place, 0.0)
        assert again.verdict is Verdict.IN_PLACE

    with_standin(scenario)
