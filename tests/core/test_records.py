"""What a DNS plan promises, over all small worlds: what may stand there, and what we know."""

import itertools
from dataclasses import replace

import pytest

from orchestrator.core.model import Publication
from orchestrator.core.records import (
    ERA,
    MAX_CHANGES,
    Action,
    Place,
    Plan,
    Record,
    Verdict,
    above,
    mark,
    plan,
    signature,
    unsafe,
)
from orchestrator.core.specs import Drift, Target
from orchestrator.core.targets import ADDRESS_TYPES, said, same

NOW = 1_000_000.0
PLACE = Place(name="ai.example.org", zone="example.org", instance="home", proxied=True)
A1, A2 = Target("A", "192.0.2.1"), Target("A", "192.0.2.2")
SIX = Target("AAAA", "2001:db8::1")
ALIAS = Target("CNAME", "one.example.net")


def signed(target, epoch, id_, instance="home"):
    return Record(id_, target.type, target.content, mark(instance, epoch), proxied=True)


STANDING = {
    "ours, confirmed": signed(A1, 3, "k1"),
    "ours, attempted": signed(A2, 4, "k2"),
    "ours, answer lost": signed(ALIAS, 4, "u1"),
    "ours, attempt since forgotten": signed(SIX, 5, "u2"),
    "ours, future lost": signed(A2, 9, "u3"),
    "edited content": replace(signed(A1, 3, "k3"), content="198.51.100.9"),
    "edited comment": replace(signed(A1, 3, "k4"), comment="do not touch"),
    "rolled back": signed(A2, 2, "k5"),
    "a copy of ours": replace(signed(A1, 3, "u4"), content="198.51.100.8"),
    "by hand": Record("h1", "A", "198.51.100.7"),
    "by hand, an alias": Record("h2", "CNAME", "blog.example.net"),
    "another instance": signed(A1, 2, "o1", "away"),
    "another instance, newer": signed(A1, 12, "k1", "away"),
    "mail": Record("m1", "MX", "mx.example.org"),
    "text": Record("t1", "TXT", '"v=spf1 -all"'),
}
KNOWN_IDS = ("k1", "k2", "k3", "k4", "k5")
FOREIGN = {"a copy of ours", "by hand", "by hand, an alias"}
THEIRS = {"another instance", "another instance, newer"}
EDITED = {"edited content", "edited comment", "rolled back"}
MEMORIES = [
    {},
    {"attempted": (ALIAS,), "attempted_epoch": 4},
    {"confirmed": (A1,), "confirmed_epoch": 3},
    {"confirmed": (A1,), "confirmed_epoch": 3, "attempted": (A2,), "attempted_epoch": 4},
    {"confirmed": (A1,), "confirmed_epoch": 3, "attempted": (ALIAS,), "attempted_epoch": 6},
]
WANTED = [((A1,), 3), ((A2,), 4), ((ALIAS,), 7), ((A2, SIX), 7)]
POLICIES = [
    (adopt, drift, corrections)
    for adopt in (False, True)
    for drift, corrections in (
        (Drift.RESPECT, 0),
        (Drift.CORRECT, 0),
        (Drift.CORRECT, 3),
    )
]


def possible(records):
    """What a name can hold: ids differ, and an alias stands alone among addresses."""
    ids = [r.id for r in records]
    addresses = [r for r in records if r.type in ADDRESS_TYPES]
    aliases = [r for r in addresses if r.type == "CNAME"]
    contents = [said(r) for r in addresses]
    return (
        len(set(ids)) == len(ids)
        and len(set(contents)) == len(contents)
        and (not aliases or len(addresses) == 1)
    )


NAMES_STANDING = [
    names
    for size in (0, 1, 2, 3)
    for names in itertools.combinations(STANDING, size)
    if possible([STANDING[n] for n in names])
]


def situations():
    """What is wanted and remembered, and how drift is met."""
    for memory, (wanted, epoch) in itertools.product(MEMORIES, WANTED):
        for adopt, drift, corrections in POLICIES:
            pub = Publication(
                wanted=wanted,
                wanted_epoch=max(epoch, memory.get("attempted_epoch", 0)),
                record_ids=KNOWN_IDS if "confirmed" in memory else (),
                adopt=adopt,
                corrections=(NOW - 60.0,) * corrections,
                **memory,
            )
            yield pub, replace(PLACE, drift=drift)


def worlds():
    known = list(situations())
    for names in NAMES_STANDING:
        there, found = set(names), [STANDING[n] for n in names]
        for pub, place in known:
            yield there, found, pub, place, plan(found, pub, place, NOW)


@pytest.fixture(scope="module")
def all_worlds():
    return list(worlds())


def applied(found, done: Plan):
    """Carry a plan out as a provider does, in its order, refusing what cannot stand together."""
    held = {r.id: r for r in found}
    fresh = itertools.count()
    for action in Action:
        for change in (c for c in done.changes if c.action is action):
            if action is Action.DELETE:
                del held[change.before.id]
            elif action is Action.PATCH:
                assert held[change.before.id].type == change.after.type
                assert change.after.id == change.before.id
                held[change.before.id] = change.after
            else:
                held[id_] = replace(change.after, id=id_) if (id_ := f"n{next(fresh)}") else None
            if action is not Action.DELETE:
                assert possible(list(held.values()))
    return list(held.values())


def test_the_small_worlds_are_many_and_reach_every_verdict_but_refusal(all_worlds):
    assert len(all_worlds) > 10_000
    assert {w[4].verdict for w in all_worlds} == set(Verdict) - {Verdict.REFUSED}


def test_only_a_plan_to_change_holds_changes(all_worlds):
    for _, _, _, _, done in all_worlds:
        assert bool(done.changes) == (done.verdict is Verdict.CHANGE)
        assert done.reason


def test_nothing_foreign_is_ever_in_a_change_until_it_is_adopted(all_worlds):
    for names, _, pub, place, done in all_worlds:
        foreign = names & (FOREIGN | THEIRS)
        if not pub.confirmed:
            foreign -= {"a copy of ours"}  # nothing tells it from a record of before a restore
        if foreign and not pub.adopt:
            assert done.verdict in (Verdict.FOREIGN, Verdict.NEWER)
        for change in done.changes:
            before = change.before
            if before is None or pub.adopt:
                continue
            by = signature(before.comment)
            assert before.id in pub.record_ids or (by and by[0] == place.instance)


def test_records_of_other_types_are_never_in_a_change(all_worlds):
    for _, _, _, _, done in all_worlds:
        for change in done.changes:
            assert {r.type for r in (change.before, change.after) if r} <= set(ADDRESS_TYPES)


def test_what_somebody_edited_is_left_alone_unless_told_to_correct_or_adopt(all_worlds):
    for names, _, pub, place, done in all_worlds:
        if not pub.confirmed or not names & EDITED or pub.adopt or names & (FOREIGN | THEIRS):
            continue
        if done.verdict is Verdict.NEWER:
            assert done.outbid
        elif place.drift is Drift.RESPECT or pub.corrections:
            assert done.verdict is Verdict.DRIFT
        else:
            assert done.verdict is Verdict.CHANGE
            assert done.correction


def test_a_removed_record_is_drift(all_worlds):
    for names, _, pub, place, done in all_worlds:
        if pub.confirmed and not names - {"mail", "text"} and not pub.adopt:
            respected = place.drift is Drift.RESPECT or len(pub.corrections) >= 3
            assert done.verdict is (Verdict.DRIFT if respected else Verdict.CHANGE)


def test_a_name_where_nothing_ever_stood_is_simply_created(all_worlds):
    for names, _, pub, _, done in all_worlds:
        if not pub.confirmed and not names - {"mail", "text"}:
            assert done.verdict is Verdict.CHANGE
            assert not done.correction
            assert {c.action for c in done.changes} == {Action.CREATE}


def test_the_answer_may_be_lost_at_any_moment_and_the_next_attempt_still_knows_its_own(all_worlds):
    """The write was applied, nobody said so, and by now something newer is wanted and tried."""
    for _, found, pub, place, done in all_worlds:
        if done.verdict is not Verdict.CHANGE or pub.adopt or done.correction:
            continue
        after = applied(found, done)
        newer = replace(
            pub,
            wanted=(Target("A", "192.0.2.77"),),
            wanted_epoch=pub.wanted_epoch + 1,
            attempted=(Target("A", "192.0.2.77"),),
            attempted_epoch=pub.wanted_epoch + 1,
        )
        assert plan(after, newer, place, NOW).verdict is Verdict.CHANGE


def test_epochs_at_the_name_only_grow(all_worlds):
    for _, found, pub, _, done in all_worlds:
        if done.verdict is Verdict.CHANGE and not done.correction:
            epochs = [s[1] for r in found if (s := signature(r.comment))]
            assert all(epoch <= pub.wanted_epoch for epoch in epochs)


def test_a_newer_epoch_of_another_instance_is_always_respected(all_worlds):
    for names, _, pub, _, done in all_worlds:
        if "another instance, newer" not in names:
            continue
        assert done.verdict in (Verdict.NEWER, Verdict.FOREIGN)
        assert done.outbid == pub.adopt
        if done.verdict is Verdict.NEWER:
            assert done.epoch == 12


def test_our_own_future_is_outbid_and_then_ours_again(all_worlds):
    for names, found, pub, place, done in all_worlds:
        if "ours, future lost" not in names or not done.outbid:
            continue
        raised = replace(pub, wanted_epoch=done.epoch + 1)
        after = plan(found, raised, place, NOW)
        assert after.verdict in (Verdict.CHANGE, Verdict.DRIFT)
        assert after.verdict is Verdict.CHANGE or names & EDITED or pub.corrections


def test_a_lost_write_that_was_never_applied_is_simply_done_again(all_worlds):
    for _, found, pub, place, done in all_worlds:
        if done.verdict is not Verdict.CHANGE or done.correction:
            continue
        tried = replace(pub, attempted=pub.wanted, attempted_epoch=pub.wanted_epoch)
        if pub.attempted_epoch == pub.wanted_epoch and pub.attempted != pub.wanted:
            continue  # one epoch says one thing
        assert plan(found, tried, place, NOW).verdict in (Verdict.CHANGE, Verdict.IN_PLACE)


def test_carrying_a_plan_out_gives_what_is_wanted_and_nothing_is_left_to_do(all_worlds):
    for _, found, pub, place, done in all_worlds:
        if done.verdict is not Verdict.CHANGE:
            continue
        after = applied(found, done)
        standing = [r for r in after if r.type in ADDRESS_TYPES]
        assert {said(r) for r in standing} == {said(t) for t in pub.wanted}
        assert all(r.comment == mark("home", pub.wanted_epoch) for r in standing)
        assert [r for r in after if r.type not in ADDRESS_TYPES] == [
            r for r in found if r.type not in ADDRESS_TYPES
        ]
        tried = replace(pub, attempted=pub.wanted, attempted_epoch=pub.wanted_epoch, adopt=False)
        again = plan(after, tried, place, NOW)
        assert again.verdict is Verdict.IN_PLACE
        assert set(again.ids) == {r.id for r in standing}


# ── one at a time ───────────────────────────────────────────────────────────────────────────────


def confirmed(*targets, epoch=3, ids=("k1",), **more):
    return Publication(
        wanted=targets,
        wanted_epoch=epoch,
        confirmed=targets,
        confirmed_epoch=epoch,
        record_ids=ids,
        **more,
    )


def test_a_move_to_another_address_is_one_patch_of_the_same_record():
    pub = replace(confirmed(A1), wanted=(A2,), wanted_epoch=4)
    done = plan([signed(A1, 3, "k1")], pub, PLACE, NOW)
    assert [(c.action, c.after) for c in done.changes] == [
        (Action.PATCH, Record("k1", "A", "192.0.2.2", "aion home epoch=4", 1, proxied=True))
    ]


def test_a_change_of_type_deletes_and_creates_in_one_plan():
    pub = replace(confirmed(A1), wanted=(ALIAS,), wanted_epoch=4)
    done = plan([signed(A1, 3, "k1")], pub, PLACE, NOW)
    assert [c.action for c in done.changes] == [Action.DELETE, Action.CREATE]


def test_a_new_epoch_alone_patches_the_comment():
    pub = replace(confirmed(A1), wanted_epoch=4)
    (change,) = plan([signed(A1, 3, "k1")], pub, PLACE, NOW).changes
    assert (change.action, change.after.comment) == (Action.PATCH, "aion home epoch=4")


def test_spelling_is_no_difference():
    alias = Target("CNAME", "One.Example.NET.")
    found = [signed(ALIAS, 3, "k1")]
    assert plan(found, confirmed(alias), PLACE, NOW).verdict is Verdict.IN_PLACE
    six = signed(Target("AAAA", "2001:0db8:0::0001"), 3, "k1")
    assert plan([six], confirmed(SIX), PLACE, NOW).verdict is Verdict.IN_PLACE


def test_a_tick_in_the_dashboard_waits_for_the_next_write():
    grey = replace(signed(A1, 3, "k1"), proxied=False, ttl=120)
    assert plan([grey], confirmed(A1), PLACE, NOW).verdict is Verdict.IN_PLACE
    firm = replace(PLACE, drift=Drift.CORRECT)
    (change,) = plan([grey], confirmed(A1), firm, NOW).changes
    assert (change.after.proxied, change.after.ttl) == (True, 1)


def test_corrections_older_than_a_day_do_not_count():
    firm = replace(PLACE, drift=Drift.CORRECT)
    edited = [STANDING["edited content"]]
    old = confirmed(A1, ids=("k3",), corrections=(NOW - 86_401.0, NOW - 10.0, NOW - 5.0))
    assert plan(edited, old, firm, NOW).verdict is Verdict.CHANGE
    fresh = replace(old, corrections=(NOW - 86_000.0, NOW - 10.0, NOW - 5.0))
    done = plan(edited, fresh, firm, NOW)
    assert done.verdict is Verdict.DRIFT
    assert "3 times" in done.reason


def test_nothing_wanted_never_empties_a_name():
    assert plan([signed(A1, 3, "k1")], Publication(), PLACE, NOW).verdict is Verdict.IN_PLACE
    emptied = replace(confirmed(A1), wanted=(), wanted_epoch=9)
    assert plan([signed(A1, 3, "k1")], emptied, PLACE, NOW).changes == ()


def test_a_plan_with_too_many_changes_is_refused():
    targets = tuple(Target("A", f"192.0.2.{n}") for n in range(1, MAX_CHANGES + 2))
    done = plan([], Publication(wanted=targets, wanted_epoch=1), PLACE, NOW)
    assert done.verdict is Verdict.REFUSED
    assert done.changes == ()


def test_what_a_stranger_wrote_cannot_break_the_line():
    odd = Record("x", "CNAME", "a\n\x1b[31mb." + "z" * 500)
    done = plan([odd], Publication(wanted=(A1,), wanted_epoch=1), PLACE, NOW)
    assert done.verdict is Verdict.FOREIGN
    assert done.reason.isprintable()
    assert len(done.reason) < 250


def test_a_bare_alias_beside_mail_is_refused_with_what_is_there():
    bare = replace(PLACE, proxied=False)
    pub = Publication(wanted=(ALIAS,), wanted_epoch=1)
    done = plan([STANDING["mail"]], pub, bare, NOW)
    assert done.verdict is Verdict.REFUSED
    assert "MX mx.example.org" in done.reason
    assert plan([STANDING["mail"]], pub, PLACE, NOW).verdict is Verdict.CHANGE
    delegated = [Record("n", "NS", "ns1.example.net")]
    assert plan(delegated, replace(pub, wanted=(A1,)), PLACE, NOW).verdict is Verdict.REFUSED


# ── what is unsafe ──────────────────────────────────────────────────────────────────────────────

UNSAFE = [
    ("A", "10.0.0.5", "reach"),
    ("A", "127.0.0.1", "reach"),
    ("A", "169.254.169.254", "reach"),
    ("A", "100.64.0.1", "reach"),
    ("A", "0.0.0.0", "reach"),
    ("A", "224.0.0.1", "reach"),
    ("A", "255.255.255.255", "reach"),
    ("A", "2001:db8::1", "IPv4"),
    ("A", "example.org", "IP address"),
    ("A", "", "IP address"),
    ("AAAA", "192.0.2.1", "IPv6"),
    ("AAAA", "::1", "reach"),
    ("AAAA", "fe80::1", "reach"),
    ("AAAA", "fc00::1", "reach"),
    ("AAAA", "fec0::1", "reach"),
    ("AAAA", "ff02::1", "reach"),
    ("AAAA", "64:ff9b::a9fe:a9fe", "reach"),
    ("AAAA", "2002:a9fe:a9fe::1", "reach"),
    ("AAAA", "::ffff:10.0.0.1", "reach"),
    ("CNAME", "ai.example.org", "itself"),
    ("CNAME", "AI.example.org.", "itself"),
    ("CNAME", "abc.trycloudflare.com", "gateway"),
    ("CNAME", "my.ngrok-free.app", "gateway"),
    ("CNAME", "192.0.2.1", "host name"),
    ("CNAME", "https://x.example.net", "host name"),
    ("CNAME", "localhost", "host name"),
    ("CNAME", "a b.example.net", "host name"),
    ("TXT", "hello", "A, AAAA or CNAME"),
]


@pytest.mark.parametrize(("type_", "content", "why"), UNSAFE)
def test_an_unsafe_target_is_never_written(type_, content, why):
    pub = Publication(wanted=(Target(type_, content),), wanted_epoch=1, adopt=True)
    done = plan([], pub, PLACE, NOW)
    assert done.verdict is Verdict.REFUSED
    assert why in done.reason


@pytest.mark.parametrize(
    ("place", "targets"),
    [
        (replace(PLACE, name="ai.example.com"), (A1,)),
        (replace(PLACE, name="badexample.org"), (A1,)),
        (replace(PLACE, name="*.example.org"), (A1,)),
        (replace(PLACE, instance="two words"), (A1,)),
        (replace(PLACE, instance=""), (A1,)),
        (replace(PLACE, instance="x" * 61), (A1,)),
        (replace(PLACE, ttl=30), (A1,)),
        (PLACE, (A1, ALIAS)),
        (PLACE, (ALIAS, Target("CNAME", "two.example.net"))),
        (replace(PLACE, proxied=False), (Target("CNAME", "11-22.cfargotunnel.com"),)),
        (replace(PLACE, marks=False), (ALIAS,)),
        (replace(PLACE, marks=False), (A1, A2)),
    ],
)
def test_an_impossible_place_is_refused(place, targets):
    assert unsafe(targets, place)


def test_private_addresses_may_be_published_where_that_is_meant():
    assert unsafe((Target("A", "10.0.0.5"),), replace(PLACE, private=True)) == ""
    assert unsafe((A1, SIX), PLACE) == ""
    assert unsafe((Target("AAAA", "2606:4700::1111"),), PLACE) == ""
    assert unsafe((Target("CNAME", "11-22.cfargotunnel.com"),), PLACE) == ""


# ── a provider that knows no comments and no ids ────────────────────────────────────────────────

PLAIN = replace(PLACE, marks=False, proxied=False)


def seen(*targets):
    return [Record("", t.type, t.content) for t in targets]


def test_by_content_only_what_we_wrote_is_ours():
    pub = confirmed(A1, ids=())
    moved = replace(pub, wanted=(A2,), wanted_epoch=4)
    assert plan(seen(A1), pub, PLAIN, NOW).verdict is Verdict.IN_PLACE
    assert plan(seen(A1), moved, PLAIN, NOW).verdict is Verdict.CHANGE
    tried = replace(moved, attempted=(A2,), attempted_epoch=4)
    assert plan(seen(A2), tried, PLAIN, NOW).verdict is Verdict.IN_PLACE
    assert plan(seen(Target("A", "198.51.100.9")), tried, PLAIN, NOW).verdict is Verdict.DRIFT
    fresh = Publication(wanted=(A1,), wanted_epoch=1)
    assert plan(seen(A2), fresh, PLAIN, NOW).verdict is Verdict.FOREIGN
    assert plan(seen(A2), replace(fresh, adopt=True), PLAIN, NOW).verdict is Verdict.CHANGE
    assert plan([], fresh, PLAIN, NOW).verdict is Verdict.CHANGE


def test_by_content_a_new_epoch_alone_is_in_place():
    assert (
        plan(seen(A1), replace(confirmed(A1), wanted_epoch=9), PLAIN, NOW).verdict
        is Verdict.IN_PLACE
    )


def test_by_content_what_cannot_be_removed_is_refused():
    pub = replace(confirmed(A1, SIX, ids=()), wanted=(A1,), wanted_epoch=4)
    done = plan(seen(A1, SIX), pub, PLAIN, NOW)
    assert done.verdict is Verdict.REFUSED
    assert "2001:db8::1" in done.reason


def test_signatures_are_read_back_as_written():
    assert signature(mark("home", 17)) == ("home", 17)
    for text in (
        "",
        "aion",
        "aion home",
        "aion home epoch=",
        "aion home epoch=x",
        "x aion h epoch=1",
    ):
        assert signature(text) is None
    assert same(A1, Record("", "A", "192.0.2.1"))


def rebuilt(epoch):
    """What an instance that knows epoch 17 finds, once it was rebuilt elsewhere."""
    return [Record("r1", "A", "192.0.2.9", f"aion {PLACE.instance} epoch={epoch}")]


def test_who_was_rebuilt_elsewhere_gives_way_and_does_not_outbid():
    pub = Publication(wanted=(A1,), wanted_epoch=17, confirmed=(A1,), confirmed_epoch=17)
    for epoch in (ERA, ERA + 1, 3 * ERA + 17):
        done = plan(rebuilt(epoch), pub, PLACE, NOW)
        assert (done.verdict, done.replaced, done.outbid) == (Verdict.NEWER, True, False)
        assert done.changes == ()
    done = plan(rebuilt(ERA - 1), pub, PLACE, NOW)
    assert (done.outbid, done.replaced) == (True, False)  # a future that a restored copy forgot


def test_the_rebuilt_one_outbids_the_old_one_whatever_that_one_wrote_last():
    pub = Publication(wanted=(A1,), wanted_epoch=ERA, confirmed=(A1,), confirmed_epoch=17)
    for epoch in (18, 400):
        done = plan(rebuilt(epoch), pub, PLACE, NOW)
        assert done.verdict is Verdict.CHANGE
        assert done.changes[0].after.comment == f"aion {PLACE.instance} epoch={ERA}"


def test_when_told_to_adopt_the_old_one_takes_an_era_of_its_own():
    pub = Publication(wanted=(A1,), wanted_epoch=17, adopt=True)
    done = plan(rebuilt(ERA + 4), pub, PLACE, NOW)
    assert (done.outbid, done.epoch) == (True, ERA + 4)
    assert above(17, ERA + 4) == 2 * ERA
    assert above(17, 400) == 401
    assert above(ERA + 4, 17) == ERA + 5
