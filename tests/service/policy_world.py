"""A world for the policy: what carrying out actions, and running jobs, makes of a state.

Everything is a value; a job that is run makes an adapter whose scores follow from its photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adreg.domain import JobState, trigger_for
from adreg.service.policy.decide import next_actions
from adreg.service.policy.records import (
    Action,
    Held,
    Judge,
    Measuring,
    Merge,
    Merged,
    Publish,
    Rest,
    Run,
    Score,
    Settled,
    State,
    Train,
)
from adreg.service.rules.gates import Gate
from adreg.service.rules.records import MergeSet, Root, Rules, Target
from adreg.store.digest import sha256_json

PETS = Path("/pets")
BASE = "base"


def pets(**changes: object) -> Root:
    """Pets pass with an identity above 0.5, and go to the Hub."""
    usual = Root(
        PETS,
        "pocket",
        "lora",
        scorer="pocket",
        gates=(Gate("identity", ">", 0.5),),
        publish=Target("me/{name}"),
        tags=("pet",),
    )
    return replace(usual, **changes)


ALL_PETS = MergeSet("zoo", "loraclr", tags=("pet",), publish=Target("me/{name}"))


class FakeKeys:
    def train(self, settled: Settled, called: str) -> str:
        root = settled.root
        return sha256_json([settled.subject, called, root.line, dict(root.train)])

    def merge(self, wanted: MergeSet, members: Sequence[Held]) -> str:
        return sha256_json([wanted.method, [held.digest for held in members]])

    def kept(self, settled: Settled, run: Run) -> bool:
        return settled.subject.startswith(run.subject)


KEYS = FakeKeys()


@dataclass
class World:
    """`state` is replaced whenever something happens; `identities` says how alike the adapter of a
    subject will be, 1 where it says nothing."""

    rules: Rules
    state: State = field(default_factory=State)
    identities: dict[str, float] = field(default_factory=dict)
    done: list[Action] = field(default_factory=list)

    @property
    def root(self) -> Root:
        return self.rules.roots[0]

    def drop(self, folder: str, subject: str) -> None:
        """A folder has come to rest, with that in it."""
        path = self.root.path / folder
        others = tuple(one for one in self.state.settled if one.folder != path)
        settled = Settled(path, self.root, path.name.casefold(), subject, BASE, "dog")
        self.state = replace(self.state, settled=(*others, settled))

    def remove(self, folder: str) -> None:
        path = self.root.path / folder
        left = tuple(one for one in self.state.settled if one.folder != path)
        self.state = replace(self.state, settled=left)

    def actions(self) -> list[Action]:
        return next_actions(self.rules, self.state, KEYS)

    def wanted(self) -> list[Action]:
        return [action for action in self.actions() if not isinstance(action, Rest)]

    def why(self, name: str) -> str:
        """Why nothing is done for it."""
        found = [a.reason for a in self.actions() if isinstance(a, Rest) and a.name == name]
        assert len(found) == 1, (name, self.actions())
        return found[0]

    def act(self) -> int:
        """Carries out all that is wanted; how much that was."""
        wanted = self.wanted()
        for action in wanted:
            self.carry_out(action)
        return len(wanted)

    def carry_out(self, action: Action) -> None:
        self.done.append(action)
        state = self.state
        if isinstance(action, Train):
            settled = next(one for one in state.settled if one.folder == action.folder)
            run = Run(
                id=len(state.runs) + 1,
                key=KEYS.train(settled, action.called),
                name=action.name,
                state="queued",
                base=BASE,
                triggers=(trigger_for(action.called),),
                subject=settled.subject,
                folder=action.folder,
                tags=action.root.tags,
            )
            if run.key not in {one.key for one in state.runs}:  # the job table's own law
                self.state = replace(state, runs=(*state.runs, run))
        elif isinstance(action, Score):
            self._change(action.digest, scored=Measuring(100, "queued"))
        elif isinstance(action, Judge):
            verdict = {action.digest: (action.passed, action.reason)}
            self.state = replace(state, verdicts={**state.verdicts, **verdict})
        elif isinstance(action, Merge):
            key = KEYS.merge(action.wanted, action.members)
            job = Merged(200 + len(state.merges), key, action.name, "queued")
            self.state = replace(state, merges=(*state.merges, job))
        elif isinstance(action, Publish):
            known: dict[tuple[str, str], tuple[JobState, int]]
            known = {(action.digest, action.repo): ("done", 300)}
            self.state = replace(state, published={**state.published, **known})

    def run_next(self, ends: JobState = "done") -> bool:
        """Runs the oldest job that waits; False where none does."""
        for number, run in enumerate(self.state.runs):
            if run.state == "queued":
                self._trained(number, run, ends)
                return True
        for held in self.state.adapters:
            if held.scored is not None and held.scored.state == "queued":
                self._scored(held, ends)
                return True
        for number, merged in enumerate(self.state.merges):
            if merged.state == "queued":
                self._merged(number, merged, ends)
                return True
        return False

    def settle(self) -> None:
        """Acts and runs until nothing is left."""
        for _ in range(1000):
            if not self.act() and not self.run_next():
                return
        raise AssertionError(f"never comes to rest: {self.wanted()}")

    def _trained(self, number: int, run: Run, ends: JobState) -> None:
        runs, digest = list(self.state.runs), f"adapter of {run.key}"
        if ends != "done":
            runs[number] = replace(run, state=ends)
            self.state = replace(self.state, runs=tuple(runs))
            return
        runs[number] = replace(run, state=ends, digest=digest)
        held = Held(
            digest=digest,
            name=run.name,
            base=BASE,
            triggers=run.triggers,
            folder=run.folder,
            line=self.root.line,
            tags=run.tags,
            order=len(self.state.adapters),
        )
        self.state = replace(
            self.state,
            runs=tuple(runs),
            adapters=(*self.state.adapters, held),
            names={**self.state.names, run.name.casefold(): digest},
        )

    def _scored(self, held: Held, ends: JobState) -> None:
        subject = next(run.subject for run in self.state.runs if run.digest == held.digest)
        figures = {"identity": self.identities.get(subject, 1.0)} if ends == "done" else {}
        self._change(held.digest, scored=Measuring(100, ends), figures=figures)

    def _merged(self, number: int, merged: Merged, ends: JobState) -> None:
        merges, digest = list(self.state.merges), f"checkpoint {merged.key}"
        merges[number] = replace(merged, state=ends, digest=digest, present=ends == "done")
        names = {**self.state.names, str(merged.name): digest} if ends == "done" else {}
        self.state = replace(self.state, merges=tuple(merges), names=names or self.state.names)

    def _change(self, digest: str, **changes: object) -> None:
        adapters = tuple(
            replace(held, **changes) if held.digest == digest else held
            for held in self.state.adapters
        )
        self.state = replace(self.state, adapters=adapters)
