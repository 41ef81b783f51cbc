"""Carries out what the policy says: every action ends in one row that is keyed by what it is of.

So a kill at any instant, or two who do the same, leave it done once or not yet.
"""

from __future__ import annotations

from collections.abc import Callable

from adreg.domain import Job
from adreg.registry import verdicts
from adreg.service.hub.publishing import request_publication
from adreg.service.merges import merging
from adreg.service.policy.records import Action, Judge, Merge, Publish, Rest, Score, Train
from adreg.service.scores import scoring
from adreg.service.training import forgetting
from adreg.service.training.cautions import training_cautions
from adreg.service.training.runs import request_training
from adreg.service.watch.looking import told_of, wish_of
from adreg.service.workspace import Workspace

Say = Callable[[str], None]


def act(ws: Workspace, action: Action, say: Say) -> None:
    """Queues the job, or writes down the verdict, and says so. Raises what the requests raise."""
    if isinstance(action, Train):
        _train(ws, action, say)
    elif isinstance(action, Score):
        job = _score(ws, action)
        say(f"{action.name}: to be scored by job {job.id}: {action.reason}")
    elif isinstance(action, Judge):
        verdicts.put(ws.registry.db, action.digest, passed=action.passed, reason=action.reason)
        say(f"{action.name}: {'passed' if action.passed else 'held back'}: {action.reason}")
    elif isinstance(action, Merge):
        job = _merge(ws, action)
        say(f"{action.name}: to be merged by job {job.id}: {action.reason}")
    elif isinstance(action, Publish):
        job = request_publication(ws, action.digest, action.repo, private=action.private)
        say(f"{action.name}: to be published as {action.repo} by job {job.id}")
    else:
        assert isinstance(action, Rest)


def _train(ws: Workspace, action: Train, say: Say) -> None:
    folder = action.folder.name
    word, kind = told_of(action.root, action.folder)
    wish = wish_of(action.root, action.folder, action.name, action.called, word, kind)
    job = request_training(ws, wish)
    as_named = "" if action.name == folder else f" as {action.name}"
    say(f"{folder}: queued{as_named} as job {job.id}: {action.reason}")
    for image, reason in job.request["set_aside"].items():
        say(f"{folder}: {image} set aside: {reason}")
    for caution in training_cautions(ws, job):
        say(f"{folder}: warning: {caution}")


def _score(ws: Workspace, action: Score) -> Job:
    root = action.root
    job = scoring.request_score(
        ws,
        action.digest,
        base_ref=root.base,
        scorer=root.scorer,
        identity_scorer=root.identity_scorer,
    )
    if job.state == "done":
        # What a line has forgotten is measured after it: a kill may have come in between.
        return forgetting.follow(ws, job.request) or job
    return job


def _merge(ws: Workspace, action: Merge) -> Job:
    wanted = action.wanted
    refs = [held.digest for held in action.members]
    recipe, base = merging.make_recipe(ws, refs, wanted.method, **wanted.options)
    return merging.request_merge(ws, recipe, base, action.name)
