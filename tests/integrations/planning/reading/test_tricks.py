"""Whatever could mean something else when the function runs ends the reading, and nothing runs."""

import functools
from collections import defaultdict
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from parrot_integrations.planning.reading.reading import read
from parrot_integrations.planning.values import BreakError, NotYetError, Text, Unknown, Variable
from tests.integrations.planning.reading.neutral import NoFramework, Symbolic, reading
from tests.integrations.planning.reading.written import written

RAN: list[str] = []


class Sly(str):
    """A string that says when anything is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        RAN.append(name)
        return super().__getattribute__(name)

    def _says(self, *_: Any) -> Any:
        RAN.append("asked")
        return True

    __eq__ = __contains__ = __add__ = __format__ = __getitem__ = __iter__ = __str__ = _says
    __hash__ = str.__hash__


class SlyDict(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        RAN.append("item")
        return super().__getitem__(key)

    get = keys = __iter__ = __getitem__  # type: ignore[assignment]


class Sized:
    kept = "kept"

    def __init__(self) -> None:
        self.mine = "mine"
        self.list = ["a"]

    @property
    def computed(self) -> str:
        RAN.append("property")
        return "a"

    def __class_getitem__(cls, key: str) -> str:
        RAN.append("class item")
        return "a"

    def __getattr__(self, name: str) -> str:
        RAN.append("attribute")
        return "a"

    def __len__(self) -> int:
        RAN.append("length")
        return 1

    __bool__ = __len__  # type: ignore[assignment]

    def hello(self, text: str) -> str:
        return f"{self.mine} {text}"


class Looked(Sized):
    def __getattribute__(self, name: str) -> Any:
        RAN.append("looked up")
        return super().__getattribute__(name)


class SlyGlobals(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        RAN.append("global")
        return "a"


@pytest.fixture(autouse=True)
def nothing_ran_yet() -> None:
    RAN.clear()


SHADOWED = """
len = lambda x: "mine"
f = lambda x: len(x)
"""
READ_ANYWAY = [
    (written("C = 'c'\nD = (1, ('d', None))\ndef f(x):\n    return [C + x, D[1][0]]"), ["ca", "d"]),
    (written(SHADOWED), "mine"),
    (written("def g(x, y='!'):\n    return x + y\nf = lambda x: g(y=x, x='<')"), "<a"),
    (written("def g(*xs, **ys):\n    return [*xs, *ys]\nf = lambda x: g(x, 'b', c=1)"),
     ["a", "b", "c"]),
    (written("f = lambda x, *, y=('b',): [x, *y]"), ["a", "b"]),
    (written("import math\nf = lambda x: str(math.pi)[:4] + x"), "3.14a"),
    (written("def f(x):\n    xs = [x]\n    xs += ['b']\n    ys = xs\n    ys.append('c')\n"
             "    return xs"),
     ["a", "b", "c"]),
    (written("def f(x):\n    try:\n        y = x\n    except ValueError:\n        y = 'no'\n"
             "    else:\n        y += '!'\n    finally:\n        z = y\n    return z"), "a!"),
    (written("def f(x):\n    print('hello', x)\n    assert x, 'none'\n    return x"), "a"),
    (written("async def g(x):\n    return x + '!'\nasync def f(x):\n    return await g(x)"), "a!"),
    (functools.partial(written("f = lambda y, x: x + y"), "b"), "ab"),
    (str.upper, "A"),
    ("-".join, "a"),
    (len, 1),
    (Sized().hello, "mine a"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(READ_ANYWAY)))
def test_what_is_certain_is_read(number: int) -> None:
    function, expected = READ_ANYWAY[number]
    assert reading(function, "a") == expected
    assert RAN == []


BREAKS: dict[str, tuple[str, str]] = {
    "global list": ("G = ['a']\nf = lambda x: G + [x]", "is a list from outside"),
    "list in a tuple": ("G = (['a'],)\nf = lambda x: G", "is a tuple from outside"),
    "mutable default": ("f = lambda x, y=[]: y + [x]", "is an operation on 'y'"),
    "nonlocal": (
        "def g():\n    n = 0\n    def f(x):\n        nonlocal n\n        n += 1\n        return x\n"
        "    return f\nf = g()",
        "nonlocal n` is more than",
    ),
    "global statement": ("def f(x):\n    global y\n    y = x\n    return x", "global y` is more than"),
    "not assigned yet": ("y = 'a'\ndef f(x):\n    z = y\n    y = z\n    return y", "no value yet"),
    "generator": ("def f(x):\n    yield x", "it is a generator"),
    "generator given": ("f = lambda x: (t for t in x)", "a generator that is kept"),
    "generator kept": ("def f(x):\n    y = (t for t in x)\n    return list(y)", "is kept"),
    "coroutine given": ("async def g(x):\n    return x\nf = lambda x: g(x)", "gives a coroutine"),
    "while": ("def f(x):\n    while x:\n        x = ''\n    return x", "is more than"),
    "with": ("def f(x):\n    with open(x) as y:\n        return y", "is more than"),
    "import": ("def f(x):\n    import os\n    return os.name", "import os` is more than"),
    "raise": ("def f(x):\n    raise ValueError(x)", "raises at line 2 for this input"),
    "lambda inside": ("f = lambda x: (lambda: x)()", "is more than"),
    "walrus": ("f = lambda x: [y := x, y]", "is more than"),
    "set": ("f = lambda x: {x}", "is more than"),
    "eval": ("f = lambda x: eval(x)", "which can't be read"),
    "open": ("f = lambda x: open(x).read()", "which can't be read"),
    "user class": ("class C:\n    pass\nf = lambda x: C()", "is a type from outside"),
    "class item": ("f = lambda x: C['a']", "is a type from outside"),
    "changing an input": ("f = lambda x: x['xs'].append('b')", "changes a list that it was given"),
    "changing by +=": (
        "def f(x):\n    y = x['xs']\n    y += ['b']\n    return y",
        "changes a list that it was given",
    ),
    "setting in an input": ("def f(x):\n    x['a'] = 1\n    return x", "that it was given"),
    "deleting": ("def f(x):\n    del x['a']\n    return x", "is more than"),
    "very long": ("f = lambda x: '-' * 10 ** 9", "is an operation on a int"),
    "very long text": ("f = lambda x: '-' * 1000000000", "very large"),
    "very wide": ("f = lambda x: f'{1:1000000000}'", "very large"),
    "very wide too": ("f = lambda x: 'a'.ljust(1000000000)", "very large"),
    "many rounds": ("f = lambda x: [i for i in range(99999)]", "takes too long"),
    "deep": ("f = lambda x: f(x)", "too deep"),
    "old formatting": ("f = lambda x: '%s' % x['a']", "formats by %"),
    "attribute in a field": ("f = lambda x: '{x.real}'.format(x=1)", "no plain name"),
    "mixed fields": ("f = lambda x: '{} {0}'.format(1)", "raises ValueError"),
    "missing key": ("f = lambda x: x['zz']", "raises KeyError"),
    "missing argument": ("f = lambda x, y: x", "it gets nothing for 'y'"),
    "star argument": ("def f():\n    return 'a'", "more arguments"),
    "user object": ("f = lambda x: len(x['object'])", "asks for the length of a Sized"),
    "user object's truth": ("f = lambda x: 1 if x['object'] else 2", "whether a Sized is true"),
    "user object's property": ("f = lambda x: x['object'].computed", "is a property"),
    "user object's attribute": ("f = lambda x: x['object'].other", "is not there"),
    "user object's list": ("f = lambda x: x['object'].list", "is a list from outside"),
    "user object looked up": ("f = lambda x: x['looked'].mine", "by code of its own"),
    "user object's item": ("f = lambda x: x['object']['a']", "takes an item of a Sized"),
    "string of a user's": ("f = lambda x: x['sly'].strip()", "calls `strip` of a Sly"),
    "string of a user's in a text": ("f = lambda x: f\"{x['sly']}\"", "puts a Sly into a text"),
    "string of a user's added": ("f = lambda x: 'a' + x['sly']", "is an operation on"),
    "string of a user's as a key": ("f = lambda x: {x['sly']: 1}", "has a Sly as a key"),
    "string of a user's compared": ("f = lambda x: x['sly'] == 'a'", "compares a Sly"),
    "string of a user's joined": ("f = lambda x: '-'.join([x['sly']])", "joins a Sly"),
    "dict of a user's": ("f = lambda x: x['slydict']['a']", "takes an item of a SlyDict"),
    "dict of a user's taken over": ("f = lambda x: {**x['slydict']}", "takes over a SlyDict"),
    "keys of a user's": ("f = lambda x: x['keys']['a']", "takes an item of a dict"),
    "default of a dict": ("f = lambda x: x['default']['a']", "takes an item of a defaultdict"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_not_certain_is_a_break(name: str) -> None:
    source, reason = BREAKS[name]
    function = written(source, **({"C": Sized} if name == "class item" else {}))
    value = {
        "a": "a",
        "xs": ["a"],
        "object": Sized(),
        "looked": Looked(),
        "sly": Sly("a"),
        "slydict": SlyDict(a="b"),
        "keys": {Sly("b"): 1},
        "default": defaultdict(str),
    }
    RAN.clear()
    with pytest.raises(BreakError) as stop:
        reading(function, value)
    assert reason in stop.value.reason
    assert RAN == []
    assert value["xs"] == ["a"]


def test_globals_of_a_class_of_their_own_are_not_read() -> None:
    function = written("f = lambda x: missing + x")
    sly: Callable[..., Any] = FunctionType(function.__code__, SlyGlobals())
    with pytest.raises(BreakError, match="globals of a class of their own"):
        reading(sly, "a")
    assert RAN == []


def test_a_builtin_that_was_rebound_is_none() -> None:
    function = written("def len(x):\n    open(x)\ndef f(x):\n    return len(x)")
    with pytest.raises(BreakError, match="open"):
        reading(function, "a")
    rebound = FunctionType(
        written("f = lambda x: len(x)").__code__, {"__builtins__": {"len": RAN.append}}
    )
    with pytest.raises(BreakError, match="which can't be read"):
        reading(rebound, "a")
    assert RAN == []


def test_a_wrapper_is_read_as_itself() -> None:
    source = """
from functools import wraps

def twice(function):
    @wraps(function)
    def wrapper(x):
        return function(function(x))
    return wrapper

@twice
def f(x):
    return x + "!"
"""
    assert reading(written(source), "a") == "a!!"


NEEDS: dict[str, str] = {
    "f = lambda t: len(t)": "line 1: `len(t)` needs the text itself",
    "f = lambda t: 'a' if t else 'b'": "line 1: `t` needs the text itself",
    "f = lambda t: t == 'a'": "needs the text itself",
    "f = lambda t: 'a' in t": "needs the text itself",
    "f = lambda t: t[:3]": "needs the text itself",
    "f = lambda t: [c for c in t]": "needs the text itself",
    "f = lambda t: int(t)": "needs the text itself",
    "f = lambda t: t.title()": "needs the text itself",
    "f = lambda t: t * 2": "needs the text itself",
    "f = lambda t: f'{t:>9}'": "needs the text itself",
    "f = lambda t: f'{t!r}'": "needs the text itself",
    "f = lambda t: str([t])": "puts a list into a text",
    "f = lambda t: t.split(t)": "needs the text itself",
    "f = lambda t: t.split('a')": "it gives a list whose length only the run knows",
    "f = lambda t: len(t.split('a'))": "needs the text itself",
    "f = lambda t: {t: 1}": "has a text that the run brings as a key",
    "def f(t):\n    for line in t.split('a'):\n        pass": "needs the text itself",
    "def f(t):\n    a, b = t.split('-')\n    return a": "needs the text itself",
}


@pytest.mark.parametrize("source", NEEDS)
def test_what_needs_the_text_itself_says_so(source: str) -> None:
    symbolic = Symbolic()
    with pytest.raises(BreakError) as stop:
        symbolic.read(written(source), symbolic.text("a"))
    assert NEEDS[source] in stop.value.reason


def test_what_is_certain_of_a_text_that_is_not_there() -> None:
    source = """
def f(t):
    titled = "Title: " + t
    if titled and isinstance(t, str) and t is not None:
        return [titled if titled else "", str(t), f"{t}", "{}".format(t)]
"""
    symbolic = Symbolic()
    assert symbolic.rendered(symbolic.read(written(source), symbolic.text("a"))) == [
        "Title: a", "a", "a", "a",
    ]  # fmt: skip


def test_what_is_not_known_yet_is_waited_for_only_where_it_is_needed() -> None:
    passed = written(
        "f = lambda x: {'a': x['a'], 'b': [x['b']], **{'c': x['b'] if 'b' in x else x is None}}"
    )
    unknown = Unknown()
    found = reading(passed, {"a": "a", "b": unknown})
    assert found == {"a": "a", "b": [unknown], "c": unknown}
    for source in ("f'{x}'", "x + 'a'", "x['a']", "'-'.join([x])", "[t for t in x]", "x or 'a'",
                   "x.strip()", "len(x)", "max([x])", "'b' if x is None else 'a'"):  # fmt: skip
        with pytest.raises(NotYetError):
            reading(written(f"f = lambda x: {source}"), unknown)


def test_transforms_that_are_equal_are_planned_once() -> None:
    symbolic = Symbolic()
    symbolic.read(written("f = lambda x: [x.strip(), x.strip() + 'a']"), symbolic.text(" a "))
    assert len(symbolic.plan.transforms) == 1


def test_a_break_names_line_and_expression_in_its_file() -> None:
    source = "\n\ndef f(x):\n    y = x + 'a'\n    return y[0:5] + 'b'\n"
    with pytest.raises(BreakError, match=r"line 5: `y\[0:5\]` needs the text itself"):
        read(Symbolic().plan, NoFramework(), written(source), [Text((Variable("v"),))], {})
