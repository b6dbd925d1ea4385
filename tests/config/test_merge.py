import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorefield.config.document import differences, merge, parse_overrides
from scorefield.errors import ConfigError

documents = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | st.integers(0, 3), max_size=3),
    max_leaves=8,
)


def no_kinds(path, kind):
    raise AssertionError("no kind is changed")


@given(documents)
def test_merging_with_nothing_or_itself_changes_nothing(document):
    assert merge(document, {}, no_kinds) == document
    assert merge({}, document, no_kinds) == document
    assert merge(document, document, no_kinds) == document


@given(documents, documents)
def test_the_upper_layer_wins_everywhere(base, layer):
    merged = merge(base, layer, no_kinds)
    assert merge(merged, layer, no_kinds) == merged
    assert set(merged) == set(base) | set(layer)


@given(documents, documents)
def test_inputs_are_not_changed(base, layer):
    before = (repr(base), repr(layer))
    merge(base, layer, no_kinds)
    assert (repr(base), repr(layer)) == before


def test_a_change_of_kind_drops_the_keys_that_the_new_kind_lacks():
    base = {"sde": {"kind": "edm", "sigma_max": 40.0, "prior_mean": 1.0}}
    asked = []

    def keys(path, kind):
        asked.append((path, kind))
        return frozenset({"kind", "beta_max", "prior_mean"})

    merged = merge(base, {"sde": {"kind": "vp", "beta_max": 9.0}}, keys)
    assert merged == {"sde": {"kind": "vp", "prior_mean": 1.0, "beta_max": 9.0}}
    assert asked == [(("sde",), "vp")]


def test_overrides_are_yaml():
    layer = parse_overrides(["a.b=1e-3", "a.c=[1, 2]", "d=null", "e=x=y", "f=true", "g=1.5e+2"])
    assert layer == {
        "a": {"b": 0.001, "c": [1, 2]}, "d": None, "e": "x=y", "f": True, "g": 150.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["a"], "no '='"),
        (["a="], "no value"),
        (["=1"], "empty key"),
        (["a..b=1"], "empty key"),
        (["a=1", "a=2"], "a more than once"),
        (["a=1", "a.b=2"], "both a and a key in it"),
        (["a={b: 1, b: 2}"], "'b' is given twice"),
        (["a=[1"], "not valid YAML"),
    ],
)
def test_wrong_overrides(overrides, told):
    with pytest.raises(ConfigError, match=told):
        parse_overrides(overrides)


@given(documents, documents)
def test_differences_are_symmetric_and_none_with_oneself(one, other):
    assert differences(one, one) == []
    swapped = {(key, b, a) for key, a, b in differences(other, one)}
    assert set(differences(one, other)) == swapped
