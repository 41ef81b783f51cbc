from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adreg.errors import PolicyRefused
from adreg.service.policy.records import Held, Judge, Merge, Publish, Rest, Score, Train
from adreg.service.rules.records import MergeSet, Rules, Target
from tests.service.policy_world import ALL_PETS, PETS, World, pets


def world(**changes: object) -> World:
    return World(Rules((pets(**changes),), (ALL_PETS,)))


def said(zoo: World) -> list[tuple[str, str]]:
    return [(type(action).__name__, action.name) for action in zoo.wanted()]


def test_a_new_folder_is_trained_scored_judged_merged_and_published() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    assert said(zoo) == [("Train", "rex"), ("Train", "tom")]
    assert [action.reason for action in zoo.wanted()] == ["a new folder"] * 2
    zoo.act()
    assert zoo.wanted() == []
    assert zoo.why("rex") == "job 1 is queued"
    assert zoo.why("zoo") == "waits for rex, tom"
    zoo.run_next()
    assert said(zoo) == [("Score", "rex")]
    zoo.act()
    zoo.run_next()
    zoo.run_next()
    # One has no scores yet: merged without it, the set would be merged twice.
    assert said(zoo) == [("Judge", "rex"), ("Score", "tom"), ("Publish", "rex")]
    zoo.act()
    zoo.run_next()
    assert said(zoo) == [
        ("Judge", "tom"),
        ("Merge", "zoo"),
        ("Publish", "tom"),
    ]
    zoo.act()
    zoo.run_next()
    (last,) = zoo.wanted()
    assert isinstance(last, Publish)
    assert (last.name, last.repo, last.private) == ("zoo", "me/zoo", True)
    zoo.act()
    assert zoo.wanted() == []
    assert zoo.why("rex") == "identity is 1, and identity > 0.5 is asked"
    assert zoo.why("zoo") == "merged as zoo: rex, tom"


def test_what_a_gate_refuses_stays_registered_and_out_of_sets_and_repositories() -> None:
    zoo = world()
    zoo.identities["bad"] = 0.25
    for name, subject in (("rex", "1"), ("tom", "2"), ("ugly", "bad")):
        zoo.drop(name, subject)
    zoo.settle()
    assert [held.name for held in zoo.state.adapters] == ["rex", "tom", "ugly"]
    (merge,) = [action for action in zoo.done if isinstance(action, Merge)]
    assert [held.name for held in merge.members] == ["rex", "tom"]
    published = {action.name for action in zoo.done if isinstance(action, Publish)}
    assert published == {"rex", "tom", "zoo"}
    judged = [a for a in zoo.done if isinstance(a, Judge) and a.name == "ugly"]
    assert [action.passed for action in judged] == [False]
    (rest,) = [a for a in zoo.actions() if a.name == "ugly"]
    assert isinstance(rest, Rest)
    assert isinstance(rest.error, PolicyRefused)
    assert rest.reason == "held back: identity is 0.25, and identity > 0.5 is asked"


def test_a_gate_that_is_changed_is_asked_again_without_measuring_again() -> None:
    zoo = world()
    zoo.identities["1"] = 0.4
    zoo.drop("rex", "1")
    zoo.settle()
    zoo.rules = Rules((pets(gates=(replace(zoo.root.gates[0], bound=0.3),)),))
    assert said(zoo) == [("Judge", "rex"), ("Publish", "rex")]


def test_a_folder_that_grew_is_a_version_and_the_newest_that_passes_is_used() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    zoo.settle()
    zoo.drop("rex", "1 and more")
    (train,) = zoo.wanted()
    assert isinstance(train, Train)
    assert (train.name, train.called) == ("rex@2", "rex")
    assert train.reason == "other photos, captions or class than job 1 had"
    zoo.done.clear()
    zoo.settle()
    merges = [action for action in zoo.done if isinstance(action, Merge)]
    assert [(m.name, [h.name for h in m.members]) for m in merges] == [("zoo@2", ["tom", "rex@2"])]
    published = [(a.name, a.repo) for a in zoo.done if isinstance(a, Publish)]
    assert published == [("rex@2", "me/rex"), ("zoo@2", "me/zoo")]

    zoo.identities["worse"] = 0.1
    zoo.drop("rex", "worse")
    zoo.done.clear()
    zoo.settle()
    assert [held.name for held in zoo.state.adapters][-1] == "rex@3"
    assert not [a for a in zoo.done if isinstance(a, Merge | Publish)]

    zoo.drop("rex", "1")  # as it was at first: nothing is trained twice
    assert not [a for a in zoo.wanted() if isinstance(a, Train)]


def test_on_a_line_a_folder_that_grew_is_a_further_task_with_a_trigger_of_its_own() -> None:
    zoo = World(Rules((pets(line="pets", method="c-lora"),), (ALL_PETS,)))
    zoo.drop("rex", "1")
    zoo.settle()
    zoo.drop("rex", "2")
    (train,) = zoo.wanted()
    assert isinstance(train, Train)
    assert (train.name, train.called) == ("rex@2", "rex@2")
    zoo.settle()
    assert [held.triggers for held in zoo.state.adapters] == [("<rex>",), ("<rex-2>",)]
    assert not [action for action in zoo.done if isinstance(action, Merge)]
    assert zoo.why("zoo") == "rex@2 alone"


def test_a_line_goes_to_one_repository_by_its_last_task() -> None:
    target = Target("me/{line}")
    zoo = World(Rules((pets(line="pets", method="c-lora", publish=target),)))
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    zoo.settle()
    published = [(a.name, a.repo) for a in zoo.done if isinstance(a, Publish)]
    assert published[-1] == ("tom", "me/pets")


def test_other_rules_make_a_version_and_say_so() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.settle()
    zoo.rules = Rules((pets(train={"steps": 900}),))
    zoo.drop("rex", "1")
    (train,) = zoo.wanted()
    assert isinstance(train, Train)
    assert (train.name, train.reason) == ("rex@2", "other rules than job 1 had")


def test_a_name_or_trigger_that_somebody_else_has_is_left_to_them() -> None:
    zoo = world()
    other = Held("d1", "rex", "base", ("<rex>",))
    token = Held("d2", "cat", "base", ("<tom>",), order=1)
    names = {"rex": "d1", "cat": "d2"}
    zoo.state = replace(zoo.state, adapters=(other, token), names=names)
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    assert said(zoo) == [("Train", "rex-2"), ("Train", "tom-2")]
    zoo.act()
    zoo.run_next()
    zoo.drop("rex", "3")
    assert ("Train", "rex-2@2") in said(zoo)


def test_folders_of_one_name_get_names_of_their_own() -> None:
    zoo = world()
    zoo.drop("Rex", "1")
    zoo.drop("rex", "2")
    assert said(zoo) == [("Train", "rex"), ("Train", "rex-2")]
    zoo.settle()
    assert zoo.wanted() == []


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
def test_a_job_that_ended_badly_stays_so_and_says_how_to_go_on(ended: str) -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.act()
    zoo.run_next(ended)  # type: ignore[arg-type]
    assert zoo.wanted() == []
    assert zoo.why("rex") == f"job 1 {ended}; again: adreg jobs retry 1"


def test_an_adapter_that_was_removed_is_not_trained_again() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.settle()
    zoo.state = replace(zoo.state, adapters=(), names={})
    assert zoo.wanted() == []
    assert "its adapter is gone; again: adreg train rex" in zoo.why("rex")


def test_a_root_that_moves_takes_its_gates_along() -> None:
    zoo = world()
    zoo.identities["bad"] = 0.25
    zoo.drop("rex", "1")
    zoo.drop("ugly", "bad")
    zoo.settle()
    zoo.rules = Rules((pets(path=Path("/moved")),), (ALL_PETS,))
    zoo.remove("ugly")
    zoo.state = replace(zoo.state, settled=())
    zoo.drop("rex", "1")
    assert zoo.wanted() == []
    assert zoo.why("rex") == "identity is 1, and identity > 0.5 is asked"
    assert zoo.why("zoo") == "rex alone"
    zoo.drop("ugly", "bad")
    assert zoo.why("ugly").startswith("held back")
    assert zoo.wanted() == []


def test_a_folder_that_moved_and_grew_at_once_is_a_version_wherever_it_lies() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.settle()
    zoo.remove("rex")
    zoo.drop("family/rex", "1 and more")
    assert said(zoo) == [("Train", "rex@2")]
    zoo.settle()
    zoo.drop("family/rex", "others by now")
    assert said(zoo) == [("Train", "rex@3")]
    zoo.settle()
    zoo.drop("friends/rex", "of somebody else")
    assert said(zoo) == [("Train", "rex-2")]


def test_a_set_waits_until_it_is_known_what_is_in_a_root() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    zoo.rules = Rules((pets(),))
    zoo.settle()
    zoo.rules = Rules((pets(),), (ALL_PETS,))
    zoo.state = replace(zoo.state, restless=frozenset([PETS]))
    assert zoo.why("zoo") == "waits for pets"
    zoo.state = replace(zoo.state, restless=frozenset())
    assert said(zoo) == [("Merge", "zoo")]


def test_a_folder_that_changes_again_is_not_trained_half_copied() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.state = replace(zoo.state, restless=frozenset([PETS / "rex"]))
    assert zoo.wanted() == []
    assert zoo.why("rex") == "waits until it is still again"


def test_what_was_trained_before_there_were_rules_is_known_by_its_photos() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.settle()
    runs = tuple(replace(run, folder=None) for run in zoo.state.runs)
    adapters = tuple(replace(held, folder=None, tags=()) for held in zoo.state.adapters)
    zoo.state = replace(zoo.state, runs=runs, adapters=adapters)
    assert zoo.wanted() == []
    assert zoo.why("rex") == "identity is 1, and identity > 0.5 is asked"
    assert zoo.why("zoo") == "rex alone"
    zoo.rules = Rules((pets(train={"steps": 900}),))
    zoo.drop("rex", "1")
    assert said(zoo) == [("Train", "rex@2")]


def test_a_removed_folder_removes_nothing() -> None:
    zoo = world()
    zoo.drop("rex", "1")
    zoo.drop("tom", "2")
    zoo.settle()
    zoo.remove("rex")
    assert zoo.wanted() == []
    assert zoo.why("zoo") == "merged as zoo: rex, tom"


def test_a_set_is_of_tags_roots_and_names_and_waits_for_restless_folders() -> None:
    sets = (
        MergeSet("by-root", "concat", roots=(PETS,)),
        MergeSet("by-name", "concat", names=("r*", "t*")),
        MergeSet("nobody", "concat", tags=("car",)),
    )
    zoo = World(Rules((pets(gates=(), publish=None),), sets))
    for name in ("rex", "tom", "ann"):
        zoo.drop(name, name)
    zoo.state = replace(zoo.state, restless=frozenset({PETS / "roy"}))
    while zoo.act() or zoo.run_next():
        pass
    assert zoo.why("by-root") == zoo.why("by-name") == "waits for roy"
    assert zoo.why("nobody") == "empty"
    zoo.state = replace(zoo.state, restless=frozenset({Path("/elsewhere/roy")}))
    merges = {a.name: [h.name for h in a.members] for a in zoo.wanted() if isinstance(a, Merge)}
    assert merges == {"by-root": ["ann", "rex", "tom"], "by-name": ["rex", "tom"]}


def test_adapters_of_several_bases_are_not_merged() -> None:
    zoo = World(Rules((pets(),), (MergeSet("all", "concat", names=("*",)),)))
    adapters = (Held("a", "ann", "one", ()), Held("b", "bob", "two", (), order=1))
    zoo.state = replace(zoo.state, adapters=adapters, names={"ann": "a", "bob": "b"})
    assert "not all of one base" in zoo.why("all")


def test_a_score_that_cannot_be_measured_holds_back_and_says_why() -> None:
    zoo = world(scores=("pres",))
    zoo.drop("rex", "1")
    zoo.act()
    zoo.run_next()
    zoo.act()
    zoo.run_next()
    (judge,) = [action for action in zoo.wanted() if isinstance(action, Judge)]
    assert not judge.passed
    assert judge.reason == "pres could not be measured"
    assert not [action for action in zoo.wanted() if isinstance(action, Score | Publish)]


def test_a_name_that_a_failed_job_leaves_free_trains_nobody_again() -> None:
    zoo = world()
    zoo.drop("Rex", "1")
    zoo.drop("rex", "2")
    zoo.act()
    zoo.run_next("failed")
    zoo.settle()
    assert [(run.name, run.subject) for run in zoo.state.runs] == [("rex", "1"), ("rex-2", "2")]


NAMES = st.sampled_from(["ann", "bob", "rex", "tom", "Rex"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), NAMES, st.sampled_from("abc")),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("act")),
        st.tuples(st.just("run")),
        st.tuples(st.just("fail")),
    ),
    max_size=25,
)


@given(STEPS, st.booleans(), st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)))
def test_whatever_happens_it_comes_to_rest_and_trains_nothing_twice(
    steps: list[tuple[str, ...]], line: bool, identities: dict[str, float]
) -> None:
    zoo = world(line="pets" if line else None)
    zoo.identities = identities
    for what, *told in steps:
        if what == "drop":
            zoo.drop(told[0], told[1])
        elif what == "remove":
            zoo.remove(told[0])
        elif what == "act":
            zoo.act()
        else:
            zoo.run_next("done" if what == "run" else "failed")
    zoo.settle()
    assert zoo.wanted() == []
    trained = [(run.folder, run.subject) for run in zoo.state.runs]
    assert len(trained) == len(set(trained))
    names = [run.name.casefold() for run in zoo.state.runs if run.digest]
    assert len(names) == len(set(names))
    merged = [merged.key for merged in zoo.state.merges]
    assert len(merged) == len(set(merged))
    for held in zoo.state.adapters:
        refused = held.figures and held.figures["identity"] <= 0.5
        assert not (refused and any(digest == held.digest for digest, _ in zoo.state.published))


@given(st.permutations(["ann", "bob", "rex", "tom"]), st.lists(st.integers(0, 3), max_size=12))
def test_the_order_in_which_folders_come_does_not_matter_to_the_end(
    order: list[str], pauses: list[int]
) -> None:
    zoo = world()
    zoo.identities["bob"] = 0.1
    for name, pause in zip(order, [*pauses, 0, 0, 0, 0], strict=False):
        zoo.drop(name, name)
        for _ in range(pause):
            zoo.act()
            zoo.run_next()
    zoo.settle()
    assert sorted((run.name, run.subject) for run in zoo.state.runs) == [
        (name, name) for name in sorted(order)
    ]
    (last,) = [action for action in zoo.done if isinstance(action, Merge)][-1:]
    assert {held.name for held in last.members} == {"ann", "rex", "tom"}
    assert {repo for _, repo in zoo.state.published} == {"me/ann", "me/rex", "me/tom", "me/zoo"}
