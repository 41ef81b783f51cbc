from __future__ import annotations

import pytest

from adreg.errors import UsageError
from adreg.train.stopping import read_bound
from tests.train.runs import small_spec


@pytest.mark.parametrize(
    ("written", "spelled"),
    [("identity>0.9", "identity>0.9"), (" loss < 3e-2 ", "loss<0.03"), ("loss<1", "loss<1.0")],
)
def test_a_bound_has_one_spelling(written: str, spelled: str) -> None:
    assert str(read_bound(written)) == spelled
    assert read_bound(spelled) == read_bound(written)
    assert small_spec(stop_when=written).stop_when == spelled


@pytest.mark.parametrize(
    "written",
    [
        *("identity<0.9", "loss>1", "kps>0.9", "identity>", "loss<1.2.3", "loss<nan", "0.9", ""),
        # What can never be.
        *("identity>1", "identity>-1.5", "loss<0", "loss<-1"),
    ],
)
def test_anything_else_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="stop_when"):
        read_bound(written)


def test_a_bound_is_met_strictly() -> None:
    identity, loss = read_bound("identity>0.9"), read_bound("loss<0.03")
    assert identity.met({"identity": 0.9}) is None
    assert identity.met({"identity": 0.9125, "loss": 7}) == "identity 0.9125 > 0.9"
    assert loss.met({"loss": 0.03}) is None
    assert loss.met({"loss": 0.02}) == "loss 0.02 < 0.03"


def test_how_often_it_is_looked_decides_only_where_it_may_end_the_run() -> None:
    plain = small_spec()
    assert small_spec(sample_every=2).digest() == plain.digest()
    bounded = small_spec(stop_when="loss<0.03", sample_every=2)
    assert bounded.digest() != plain.digest()
    assert bounded.digest() != small_spec(stop_when="loss<0.03", sample_every=3).digest()
    assert small_spec(stop_when="loss<0.03").sample_every == 50
    with pytest.raises(UsageError, match="sample_every"):
        small_spec(stop_when="loss<0.03", sample_every=0)
