"""Makes the one file that is served: every module of the agent, readable, and a small importer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

PACKAGE = "aion_agent"
LEFT_OUT = ("bundle", "__main__")

HEAD = '''\
"""The agent of aion: serves a model from a notebook or any machine. One file; made, not written.

In a notebook:
    import urllib.request as u
    exec(u.urlopen("https://aion.example.org/agent.py").read())
    start(aion="https://aion.example.org", backend="colab", engine="ollama", models=["qwen3:8b"])
In a shell:
    python agent.py --aion https://aion.example.org --backend box --engine-url http://127.0.0.1:8000
    curl -fsS https://aion.example.org/agent.py | python - --help
"""
_SOURCES = {}
'''

TAIL = """

def _aion_load():
    import importlib, importlib.abc, importlib.util, linecache, sys
    if sys.version_info < (3, 11):
        return "the agent needs Python 3.11 or newer; this is " + sys.version.split()[0]
    if importlib.util.find_spec("aiohttp") is None:
        return "the agent needs aiohttp: pip install aiohttp"

    class Importer(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
        package = "aion_agent"

        def find_spec(self, name, path=None, target=None):
            if name != self.package and not name.startswith(self.package + "."):
                return None
            if name.rpartition(".")[2] not in self.sources and name != self.package:
                return None
            spec = importlib.util.spec_from_loader(name, self, is_package=name == self.package)
            return spec

        def is_package(self, name):
            return name == self.package

        def get_source(self, name):
            return self.sources["__init__" if name == self.package else name.rpartition(".")[2]]

        def get_code(self, name):
            source = self.get_source(name)
            path = "<" + name + ">"
            linecache.cache[path] = (len(source), None, source.splitlines(True), path)
            return compile(source, path, "exec", dont_inherit=True)

    importer = Importer()
    importer.sources = dict(_SOURCES)
    for name in [n for n in sys.modules if n == "aion_agent" or n.startswith("aion_agent.")]:
        del sys.modules[name]
    sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "package", "") != "aion_agent"]
    sys.meta_path.insert(0, importer)
    return importlib.import_module("aion_agent.starting")


_loaded = _aion_load()
if isinstance(_loaded, str):
    raise SystemExit(_loaded)
start, run, stop = _loaded.start, _loaded.start, _loaded.stop
if __name__ == "__main__" and "get_ipython" not in globals():
    import sys as _sys

    # What a program executes from a text is only to be loaded; a file or standard input is to run.
    if _sys._getframe().f_code.co_filename != "<string>":
        raise SystemExit(_loaded.main())
"""


def modules() -> dict[str, str]:
    """Give the sources, by the modules' names."""
    folder = Path(__file__).parent
    found = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.py"))}
    return {name: text for name, text in found.items() if name not in LEFT_OUT}


def quoted(text: str) -> str:
    """Write a text as a Python literal that can be read."""
    if "'''" in text or text.endswith("'"):
        return repr(text)
    return f"r'''{text}'''"


@cache
def source() -> str:
    """Make the one file. Needs no arguments, is the same each time; some 90 kB."""
    parts = [f'_SOURCES["{name}"] = {quoted(text)}\n' for name, text in modules().items()]
    return "\n".join([HEAD, *parts]) + TAIL
