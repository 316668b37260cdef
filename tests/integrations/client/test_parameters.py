import pytest

from parrot_integrations.client.parameters import check_one_choice, merged_parameters


@pytest.mark.parametrize(
    ("layers", "merged"),
    [
        ([{"temperature": 0, "seed": None}], {"temperature": 0}),
        ([{"temperature": 1.0}, {"temperature": 0}], {"temperature": 0}),
        ([{"temperature": 1.0}, {"temperature": None}], {}),
        ([{"max_tokens": 9}, {"max_completion_tokens": 5}], {"max_tokens": 5}),
        ([{"model": "a"}, {"model_name": "b"}], {"model": "b"}),
        ([{"stop": ["a"]}, {"stop_sequences": ["b"]}], {"stop": ["b"]}),
        ([{"stop": []}], {}),
        ([{"stop": "a"}, {"stop": []}], {}),
        ([{"unheard_of": 3}], {"unheard_of": 3}),
    ],
)
def test_later_layers_win_and_none_is_the_servers_default(layers, merged):
    assert merged_parameters(*layers) == merged


def test_a_stream_has_one_choice() -> None:
    check_one_choice({"messages": []})
    check_one_choice({"n": 1})
    with pytest.raises(ValueError, match="n is 2"):
        check_one_choice({"n": 2})
