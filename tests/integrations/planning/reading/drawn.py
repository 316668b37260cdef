"""Functions that Hypothesis writes: over a dict of two texts, a list of texts and a number."""

from hypothesis import strategies as st

_LITERALS = ["", " ", "a", "b b", "Ab", "-", "\\n", "{", "x y z"]
_CONDITIONS = [
    "len(x['xs']) > 1",
    "'a' in x",
    "'zz' not in x",
    "x['n'] == 3 and not x['xs']",
    "x.get('zz') is None",
    "0 < x['n'] <= 3",
    "isinstance(x['a'], str)",
    "x['xs'] or x['n']",
    "x['a'] == 'a'",
    "x['b']",
    "len(x['a'])",
]
_METHODS = ["strip()", "strip(' a')", "lstrip()", "rstrip('b')", "lower()", "upper()", "title()"]

literals = st.sampled_from(_LITERALS).map(lambda text: f"'{text}'")


def texts() -> st.SearchStrategy[str]:
    """Expressions that give a string."""
    leaves = st.one_of(
        st.sampled_from(["x['a']", "x['b']", "x.get('a')", "x.get('zz', 'no')", "x['xs'][0]"]),
        st.sampled_from(["str(x['n'])", "'-' * x['n']", "f'{x[\"n\"]:03d}'", "x['xs'][-1]"]),
        literals,
    )
    return st.recursive(leaves, _text_around, max_leaves=6)


def _text_around(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def filled(pattern: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(*parts).map(lambda drawn: pattern.format(*drawn))

    conditions = st.sampled_from(_CONDITIONS)
    return st.one_of(
        filled("({}).{}", inside, st.sampled_from(_METHODS)),
        filled("({}).replace({}, {})", inside, literals, literals),
        filled("({}).replace({}, {})", literals, literals, inside),
        filled("({}).removeprefix({})", inside, literals),
        filled("({}).removesuffix({})", inside, literals),
        filled("({}).split({})[0]", inside, literals),
        filled("({}).split()[-1]", inside),
        filled("({} + {})", inside, inside),
        filled("f'<{{{}}}{{{}!s}}>'", inside.filter(_fits), inside.filter(_fits)),
        filled("'{{}}{{{{ {{}}'.format({}, {})", inside, inside),
        filled("'{{k}} {{k}}'.format(k={})", inside),
        filled("({}).join([{}, {}])", literals, inside, inside),
        filled("({}).join({} for t in x['xs'])", literals, inside),
        filled("({}).join(t + {} for i, t in enumerate(x['xs']) if i < 2)", inside, inside),
        filled("({} if {} else {})", inside, conditions, inside),
        filled("({} or {})", inside, inside),
    )


def _fits(text: str) -> bool:
    """In an f-string's field, as Python 3.11 parses them."""
    return "'" not in text and "\\" not in text and "{" not in text


def values() -> st.SearchStrategy[str]:
    """Expressions that give a string, or containers of strings."""
    text = texts()
    two = st.tuples(text, text)
    return st.one_of(
        text,
        two.map(lambda t: f"{{'k': {t[0]}, **x, 'l': [{t[1]}]}}"),
        two.map(lambda t: f"[{t[0]}, *x['xs'], ({t[1]}, x['n'])]"),
        text.map(lambda t: f"[{t} for t in x['xs']][1:]"),
        text.map(lambda t: f"{{i: {t} for i, t in enumerate(x['xs'], 1)}}"),
        two.map(lambda t: f"dict(zip(x['xs'], [{t[0]}, {t[1]}]))"),
        text.map(lambda t: f"[k + {t} for k in sorted(x)]"),
        two.map(lambda t: f"len([{t[0]}, {t[1]}]) + sum(range(x['n']))"),
        text.map(lambda t: f"list(reversed(x['xs'])) + [{t}]"),
    )


def functions() -> st.SearchStrategy[str]:
    """A lambda, or a function with statements."""
    text, value = texts(), values()
    return st.one_of(
        value.map(lambda v: f"f = lambda x: {v}"),
        st.tuples(text, text, value).map(
            lambda t: (
                "def f(x):\n"
                '    "Says it."\n'
                f"    first, found = {t[0]}, []\n"
                "    for i, t in enumerate(x['xs']):\n"
                "        if i == x['n']:\n"
                "            break\n"
                f"        found.append(t + {t[1]})\n"
                "    first += str(i) if x['xs'] else ''\n"
                f"    made: dict = {{'first': first, 'found': found, 'rest': {t[2]}}}\n"
                "    made['more'] = first\n"
                "    return made\n"
            )
        ),
    )
