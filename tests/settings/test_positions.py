"""The scanner finds what tomllib reads, where it stands."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.settings.document import parse
from orchestrator.settings.positions import scan

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
ANY = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
NAMES = BARE | ANY
LEAVES = (
    st.integers(-99, 99) | st.booleans() | TEXT | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TREES = st.dictionaries(
    NAMES,
    VALUES | st.lists(st.dictionaries(NAMES, VALUES, max_size=2), min_size=1, max_size=2),
    max_size=5,
)


def quoted(text):
    plain = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return (
        '"'
        + "".join(plain.get(c, c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text)
        + '"'
    )


class Writer:
    """Writes a tree as TOML in one of the many ways there are, as `draw` says."""

    def __init__(self, draw):
        self.draw = draw

    def pick(self, *options):
        return self.draw(st.sampled_from(options))

    def key(self, name):
        styles = [quoted(name)]
        if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
            styles.append(name)
        if "'" not in name and "\t" not in name:
            styles.append(f"'{name}'")
        return self.pick(*styles)

    def text(self, text):
        styles = [quoted(text)]
        if "'" not in text and all(c >= " " and c != "\x7f" for c in text):
            styles += [f"'{text}'", f"'''\n{text}'''"]
        styles.append('"""' + quoted(text)[1:-1] + '"""')
        return self.pick(*styles)

    def value(self, value):
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            gap = self.pick("", " ", "\n  # note ] }\n")
            return (
                "["
                + ",".join(f"{gap}{self.value(item)}{gap}" for item in value)
                + self.pick("", ",")[: len(value)]
                + "]"
            )
        if isinstance(value, dict):
            pairs = (f" {self.key(k)} = {self.value(v)} " for k, v in value.items())
            return "{" + ",".join(pairs) + "}"
        return repr(value)

    def table(self, tree, path):
        later = []
        for name, value in tree.items():
            tables = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            if isinstance(value, dict) and value and self.pick(True, False):
                if len(value) == 1 and self.pick(True, False):
                    ((inner, item),) = value.items()
                    yield f"{self.key(name)} . {self.key(inner)} = {self.value(item)}{self.pick('', ' # x')}"
                else:
                    later.append((name, value))
            elif tables and self.pick(True, False):
                later.append((name, value))
            else:
                yield f"{self.pick('', '  ')}{self.key(name)}{self.pick('', ' ')}= {self.value(value)}{self.pick('', ' # x = 1')}"
        for name, value in later:
            here = [*path, name]
            head = self.pick(".", " . ").join(self.key(part) for part in here)
            for item in value if isinstance(value, list) else [value]:
                yield f"[[{head}]]" if isinstance(value, list) else f"[ {head} ]"
                yield from self.table(item, here)


@st.composite
def documents(draw):
    tree = draw(TREES)
    return tree, "\n".join(Writer(draw).table(tree, [])) + "\n"


def paths(value, start=()):
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*start, key)
        yield from paths(item, (*start, key))


@settings(max_examples=150, deadline=None)
@given(documents())
def test_the_scanner_finds_exactly_the_keys_that_tomllib_reads(written):
    tree, text = written
    read = tomllib.loads(text)
    assert read == tree
    places = scan(text)
    assert not places.again
    assert {*places.keys, *places.values} == set(paths(read))
    lines = text.split("\n")
    for path, mark in places.keys.items():
        if isinstance(path[-1], str) and path[-1].isidentifier():
            assert path[-1] in lines[mark.line - 1][mark.column : mark.column + mark.width]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(list("ab.=[]{}\"'\\#,\n 1-")), max_size=40))
def test_the_scanner_never_fails_on_what_is_not_toml(text):
    document = parse(text)
    assert document.problems or document.data == tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "width"),
    [
        ('[a]\n\n  b."c d" = 1', 3, 4, 5),
        ('a = """\nx = 1\n"""\nb."c d" = 1', 4, 2, 5),
        ("a = [\n 1, # ]\n 2]\nb.'c d' = 1", 4, 2, 5),
        ('b = { "c d" = 1 }', 1, 6, 5),
    ],
)
def test_a_key_is_found_where_it_stands(text, line, column, width):
    found = {path[-1]: mark for path, mark in scan(text).keys.items()}["c d"]
    assert (found.line, found.column, found.width) == (line, column, width)
