"""What calls have in common: whole variables, whole roles, and the longest of all earlier ones."""

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.wire.messages import SemanticMessage, TextSegment
from parrot_integrations.planning.explaining.marking import length, marked, with_markers
from parrot_integrations.planning.explaining.sharing import (
    common_prefix,
    families,
    shares,
)
from tests.programs import call


def shared(*templates: str) -> dict[str, tuple[str, str]]:
    calls = [call(f"c{i}", template) for i, template in enumerate(templates)]
    return {name: (s.call_id, with_markers(s.prefix)) for name, s in shares(calls).items()}


def test_a_variable_is_shared_whole_or_not_at_all() -> None:
    assert shared("Read {doc} now", "Read {doc} never") == {"c1": ("c0", "[user] Read {doc} n")}
    assert shared("Read {doc}", "Read {document}") == {"c1": ("c0", "[user] Read")}


def test_a_role_alone_is_nothing_to_share() -> None:
    assert shared("one", "two") == {}


def test_the_call_that_shares_most_is_named() -> None:
    assert shared("ab", "abcd", "abcx", "zz") == {
        "c1": ("c0", "[user] ab"),
        "c2": ("c1", "[user] abc"),
    }


def test_braces_of_the_template_s_own_are_text() -> None:
    content = [TextSegment(text="{x} a")]
    literal = call("b", "-").model_copy(
        update={"messages": [SemanticMessage(role="user", content=content)]}
    )
    assert shares([call("a", "{x} a"), literal]) == {}
    assert with_markers(marked(literal)) == "[user] {x} a"


def test_the_length_is_that_of_the_text_that_is_sent() -> None:
    assert length(marked(call("c", "ab{x}")), {"x": "12345"}) == 7


def test_families_begin_alike() -> None:
    (family,) = families([call("a", "Do {x}"), call("b", "Do {y}"), call("c", "Else {x}")])
    members, prefix = family
    assert ([member.id for member in members], with_markers(prefix)) == (["a", "b"], "[user] Do")


pieces = st.lists(st.sampled_from(["a", "b", "ab", "{v}", "{vw}"]), max_size=4).map("".join)


@given(st.lists(pieces.filter(bool), min_size=1, max_size=12))
def test_no_earlier_call_shares_more(templates: list[str]) -> None:
    calls = [call(f"c{i}", template) for i, template in enumerate(templates)]
    found = shares(calls)
    for i, own in enumerate(calls):
        longest = max(
            (length(common_prefix(marked(own), marked(other)), {}) for other in calls[:i]),
            default=0,
        )
        share = found.get(own.id)
        assert (length(share.prefix, {}) if share else 0) == longest
