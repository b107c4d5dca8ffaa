"""No registered address leads anywhere but to a public host its backend is allowed."""

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from orchestrator.core.addresses import matches, why_not_pattern, why_not_public, why_not_url

PUBLIC = ("93.184.216.34", "1.1.1.1", "192.52.193.1", "2606:4700::6810:84e5", "2a00:1450::1")
NOT_PUBLIC = {
    "0.0.0.0": "of this network",
    "0.1.2.3": "of this network",
    "10.0.0.5": "private",
    "100.64.0.1": "shared by a carrier's customers",
    "100.127.255.255": "shared by a carrier's customers",
    "100.100.100.200": "a cloud's metadata server",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "a cloud's metadata server",
    "169.254.1.1": "link-local",
    "169.254.169.254": "a cloud's metadata server",
    "169.254.170.2": "a cloud's metadata server",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "for protocols",
    "192.0.0.192": "a cloud's metadata server",
    "192.0.2.1": "for documentation",
    "192.88.99.1": "of a 6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "for benchmarks",
    "198.51.100.7": "for documentation",
    "203.0.113.7": "for documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "for broadcasts",
    "::": "unspecified",
    "::1": "loopback",
    "::2": "of this network (0.0.0.2 inside)",
    "100::1": "for discarding",
    "2001:2::1": "for benchmarks",
    "2001:10::1": "for protocols",
    "2001:20::1": "for protocols",
    "2001:db8::1": "for documentation",
    "3fff::1": "for documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "private",
    "fd00:ec2::254": "a cloud's metadata server",
    "fd20:ce::254": "a cloud's metadata server",
    "fdab::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "64:ff9b:1::1": "NAT64 of a local network",
    "64:ff9b:1::5db8:d822": "NAT64 of a local network",
    "::ffff:0:7f00:1": "reserved",  # "translated", RFC 2765
    "": "not an IP address",
    "example.org": "not an IP address",
    "0177.0.0.1": "not an IP address",
    "2130706433": "not an IP address",
    "127.1": "not an IP address",
}
WRAPPED = {
    "mapped": "::ffff:{dotted}",
    "compatible": "::{dotted}",
    "6to4": "2002:{hex}::1",
    "nat64": "64:ff9b::{dotted}",
    "teredo server": "2001:0:{hex}:0:ffff:a247:27dd",
    "teredo client": "2001:0:4136:e378:8000:63bf:{inverted}",
    "isatap": "2606:4700::5efe:{dotted}",
    "isatap, global": "2606:4700::200:5efe:{dotted}",
}


def wrapped(form: str, inner: str) -> str:
    number = int(ipaddress.IPv4Address(inner))
    halves = [f"{n >> 16:x}:{n & 0xFFFF:x}" for n in (number, number ^ 0xFFFFFFFF)]
    return WRAPPED[form].format(dotted=inner, hex=halves[0], inverted=halves[1])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address):
    assert why_not_public(address) == ""


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC.items())
def test_every_other_kind_of_address_is_refused_by_its_name(address, why):
    assert why_not_public(address) == why


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("inner", ["169.254.169.254", "127.0.0.1", "10.0.0.5", "224.0.0.1"])
def test_what_is_not_public_stays_so_in_every_wrapping(form, inner):
    assert why_not_public(wrapped(form, inner)) == f"{why_not_public(inner)} ({inner} inside)"


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe"],
)
def test_the_metadata_server_is_known_in_its_usual_wrappings(address):
    assert why_not_public(address) == "a cloud's metadata server (169.254.169.254 inside)"


@pytest.mark.parametrize("form", sorted(set(WRAPPED) - {"compatible"}))
def test_a_public_address_may_be_wrapped(form):
    assert why_not_public(wrapped(form, "93.184.216.34")) == ""


def test_the_deprecated_wrapping_is_not_global_whatever_is_inside():
    assert why_not_public("::93.184.216.34") == "reserved"


@given(st.ip_addresses(v=4))
def test_ipv4_is_never_laxer_than_pythons_own_tables(address):
    lax = address.is_global and not (address.is_multicast or address.is_reserved)
    assert lax or why_not_public(str(address))


@given(
    st.ip_addresses(v=6)
    | st.integers(0, 2**125 - 1).map(lambda n: ipaddress.IPv6Address(n + 2**125))
)
@example(ipaddress.IPv6Address("2620:4f:8000::1"))
def test_ipv6_is_never_laxer_than_pythons_own_tables(address):
    if why_not_public(str(address)):
        return
    assert address.is_global
    assert not address.is_multicast
    assert not address.is_site_local
    assert int(address) >> 125 == 1 or str(address).startswith(("64:ff9b::", "::ffff:"))


@given(st.sampled_from(sorted(WRAPPED)), st.ip_addresses(v=4))
def test_no_wrapping_makes_an_address_more_public_than_it_is(form, inner):
    if why_not_public(str(inner)):
        assert why_not_public(wrapped(form, str(inner)))


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────

HOSTS = (
    "*.trycloudflare.com",
    "box.example.org",
    "203.0.113.7",
    "8.8.8.8",
    "::1",
    "lab",
    "10.0.0.5",
)


@pytest.mark.parametrize(
    "url",
    [
        "https://quick-brown-fox.trycloudflare.com",
        "https://quick-brown-fox.trycloudflare.com/",
        "https://a.b.trycloudflare.com:8443",
        "https://Quick.TryCloudflare.COM",
        "https://box.example.org.",
        "https://box.example.org.:443/",
        "https://8.8.8.8:1",
        "https://xn--mnchen-3ya.trycloudflare.com",
    ],
)
def test_a_listed_public_host_is_fine(url):
    assert why_not_url(url, HOSTS, allow_private=False) == ""
    assert why_not_url(url, HOSTS, allow_private=True) == ""


NOT_URLS = {
    "": "begins with https://",
    "box.example.org": "begins with https://",
    "//box.example.org": "begins with https://",
    "https:/box.example.org": "begins with https://",
    "ftp://box.example.org": "begins with https://",
    "HTTPS://box.example.org": "begins with https://",
    "javascript://box.example.org": "begins with https://",
    "https://": "not a host name",
    "https://.": "not a host name",
    "https://me@box.example.org": "no user or password",
    "https://me:pw@box.example.org": "no user or password",
    "https://box.example.org@evil.example": "no user or password",
    "https://evil.example#@box.example.org": "no `#`",
    "https://box.example.org?x=1": "no `?`",
    "https://box.example.org#x": "no `#`",
    "https://box.example.org/v1": "no path",
    "https://box.example.org//": "no path",
    "https://box.example.org/?x": "no path",
    "https://box.example.org/../": "no path",
    "https://box.example.org:": "not a port",
    "https://box.example.org:0": "not a port",
    "https://box.example.org:065": "not a port",
    "https://box.example.org:65536": "not a port",
    "https://box.example.org:99999999999": "not a port",
    "https://box.example.org:80:80": "not a port",
    "https://box.example.org:+80": "not a port",
    "https://[::1]x": "not a port",
    "https://box.example.org ": "plain characters",
    " https://box.example.org": "plain characters",
    "https://box.example.org\r\nHost: evil": "plain characters",
    "https://box.example.org\t": "plain characters",
    "https://box.example.org\x00": "plain characters",
    "https://box.example.org\\@evil.example": "plain characters",
    "https://b\u00f6x.example.org": "plain characters",
    "https://\uff11\uff12\uff17.0.0.1": "plain characters",  # full-width digits
    "https://box\u3002example.org": "plain characters",  # a full stop to IDNA
    "https://box%2eexample.org": "not a host name",
    "https://%31%32%37.0.0.1": "an IP address in a spelling of its own",
    "https://box..example.org": "not a host name",
    "https://-box.example.org": "not a host name",
    "https://box.example.org,evil.example": "not a host name",
    "https://" + "a" * 64 + ".trycloudflare.com": "not a host name",
    "https://" + "a." * 120 + "trycloudflare.com": "not a host name",
    "https://" + "a" * 300: "more than 300 characters",
    "https://evil.example": "not in allow_hosts",
    "https://trycloudflare.com": "not in allow_hosts",
    "https://eviltrycloudflare.com": "not in allow_hosts",
    "https://x.trycloudflare.com.evil.example": "not in allow_hosts",
    "https://x.box.example.org": "not in allow_hosts",
    "https://1.1.1.1": "not in allow_hosts",
    "https://[2606:4700::6810:84e5]": "not in allow_hosts",
}


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(("url", "why"), NOT_URLS.items())
def test_anything_else_is_refused_in_words(url, why, allow_private):
    said = why_not_url(url, HOSTS, allow_private=allow_private)
    assert why in said
    assert said.isprintable()
    assert "\n" not in said


METADATA = (
    "169.254.169.254",
    "169.254.169.254.",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[::169.254.169.254]",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "169.254.169.254.0x",
    "0x",
    "%31%36%39.254.169.254",
    "169.254.169.%3254",
    "\uff11\uff16\uff19.254.169.254",
    "169\u3002254\u3002169\u3002254",
    "metadata.google.internal",
    "METADATA.GOOGLE.INTERNAL.",
    "metadata",
    "instance-data.ec2.internal",
)


@pytest.mark.parametrize("host", METADATA)
@pytest.mark.parametrize("allow_private", [False, True])
def test_the_metadata_server_is_refused_in_every_disguise_even_if_listed(host, allow_private):
    listed = (*HOSTS, host, host.strip("[]"), "*.internal", "*.254")
    assert why_not_url(f"https://{host}", listed, allow_private=allow_private)
    assert why_not_url(f"http://{host}:80/", listed, allow_private=allow_private)


@pytest.mark.parametrize(
    "host",
    ["0177.0.0.1", "0x7f.1", "127.1", "2130706433", "0x7f000001", "127.0.0.01", "1.2.3.4.5", "a.1"],
)
def test_an_address_in_a_spelling_of_its_own_never_passes(host):
    for allow_private in (False, True):
        said = why_not_url(f"https://{host}", (*HOSTS, host), allow_private=allow_private)
        assert "a spelling of its own" in said


PRIVATE = {"http://10.0.0.5:8080", "https://10.0.0.5", "https://[::1]:1", "http://lab:8000", "https://lab",
           "https://203.0.113.7"}  # fmt: skip


@pytest.mark.parametrize("url", sorted(PRIVATE))
def test_ones_own_network_needs_to_be_listed_and_allowed(url):
    assert why_not_url(url, HOSTS, allow_private=True) == ""
    assert "allow_private" in why_not_url(url, HOSTS, allow_private=False)
    assert "not in allow_hosts" in why_not_url(url, ("*.example.org",), allow_private=True)


def test_plain_http_is_for_ones_own_network_only():
    url = "http://box.example.org"
    assert "only https://" in why_not_url(url, HOSTS, allow_private=False)
    assert why_not_url(url, HOSTS, allow_private=True) == ""


@given(st.text(max_size=40), st.booleans())
@example("https://[::1", False)
@example("https://]:80", True)
def test_no_text_whatever_passes_without_its_host_being_listed(text, allow_private):
    for url in (text, f"https://{text}"):
        if why_not_url(url, HOSTS, allow_private=allow_private) == "":
            host = url.split("://")[1].split("/")[0].lower()
            assert any(
                matches(host.rpartition(":")[0] or host, p) or matches(host, p) for p in HOSTS
            )


@given(
    st.from_regex(
        r"https?://[a-zA-Z0-9.@:%#?\\/_\[\]-]{0,20}(\.trycloudflare\.com|box\.example\.org|10\.0\.0\.5)?"
        r"\.?(:[0-9]{0,6})?[/?#@.]?[a-z]{0,3}",
        fullmatch=True,
    )
)
@example("https://a.trycloudflare.com:65535/")
@example("https://box.example.org.:1")
def test_whoever_else_reads_an_address_that_passes_reads_the_same_host(url):
    if why_not_url(url, HOSTS, allow_private=True):
        return
    ours, theirs = urlsplit(url), URL(url)
    assert ours.hostname is not None
    assert (theirs.raw_host, theirs.port) == (ours.hostname, ours.port or theirs.port)
    assert any(matches(theirs.raw_host or "", pattern) for pattern in HOSTS)
    assert (theirs.user, theirs.password, theirs.query_string, theirs.fragment) == (
        None,
        None,
        "",
        "",
    )
    assert theirs.path == "/"


@pytest.mark.parametrize(
    ("host", "pattern", "is_meant"),
    [
        ("a.example.org", "*.example.org", True),
        ("a.b.example.org", "*.EXAMPLE.org.", True),
        ("A.Example.Org.", "a.example.org", True),
        ("example.org", "*.example.org", False),
        ("aexample.org", "*.example.org", False),
        (".example.org", "*.example.org", False),
        ("a.example.org.evil", "*.example.org", False),
        ("[::1]", "::1", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("a.example.org", "a.*.org", False),
    ],
)
def test_a_pattern_means_one_host_or_every_name_below_it(host, pattern, is_meant):
    assert matches(host, pattern) is is_meant


@pytest.mark.parametrize(
    ("pattern", "allow_private", "why"),
    [
        ("box.example.org", False, ""),
        ("*.trycloudflare.com", False, ""),
        ("8.8.8.8", False, ""),
        ("::1", True, ""),
        ("[::1]", True, ""),
        ("lab", True, ""),
        ("*.lan", True, ""),
        ("*.com", False, "a whole top-level domain"),
        ("*", False, "for all names below"),
        ("*", True, "for all names below"),
        ("a.*.org", False, "for all names below"),
        ("*.*.org", False, "for all names below"),
        ("", False, "not a host name"),
        ("*.", False, "for all names below"),
        ("https://box.example.org", False, "not a host name"),
        ("box.example.org:443", False, "not a host name"),
        ("127.1", True, "a spelling of its own"),
        ("*.0.0.1", True, "a spelling of its own"),
        ("*.10.0.0.5", True, "with no names below"),
    ],
)
def test_a_pattern_that_means_nothing_or_too_much_is_refused(pattern, allow_private, why):
    said = why_not_pattern(pattern, allow_private=allow_private)
    assert (why in said) if why else said == ""
