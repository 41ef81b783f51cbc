"""What is asked of a training run that is there already, and that does not reach it any more."""

from __future__ import annotations

from adreg.domain import Job
from adreg.service.training.runs import TrainingWish, log_folder, spec_of
from adreg.service.workspace import Workspace
from adreg.train.spec import TrainSpec


def already(ws: Workspace, wish: TrainingWish, job: Job) -> list[str]:
    """Sentences on a job that `request_training` found: that it is done, and what it leaves out.

    A run is known by what decides its adapter. Samples, logs and a joint run's name do not; a job
    that is done, or that somebody else has queued, does without those that come too late.
    """
    missed = _missed(ws, wish, job)
    if job.state != "done":
        return [_of_live(job, option) for option in missed]
    told = f"job {job.id} has trained this before, on {job.updated}: nothing is trained again"
    return [told, *(_of_done(wish, option) for option in missed)]


def _missed(ws: Workspace, wish: TrainingWish, job: Job) -> list[str]:
    """The options that ask for something else than the job was queued with."""
    request = job.request
    wanted = spec_of(wish, ws.base(wish.base))
    queued = TrainSpec.from_json(request["spec"])
    found = []
    if wanted.sample_every not in (0, queued.sample_every):
        found.append(f"--sample-every {wanted.sample_every}")
    if wish.tensorboard is not None and request.get("tensorboard") != log_folder(wish):
        found.append(f"--tensorboard {wish.tensorboard}")
    if request["name"] != wish.name:
        found.append(f"--name {wish.name}")
    if wanted.gradient_checkpointing and not queued.gradient_checkpointing and job.state != "done":
        found.append("--gradient-checkpointing")
    return found


def _of_done(wish: TrainingWish, option: str) -> str:
    another = "other names in their subject.toml" if wish.also else "another --name"
    if option.startswith("--name"):
        return f"{option} names nothing: the adapter keeps the name it has"
    return f"{option} makes nothing: it is for a run under way; {another} makes a run of its own"


def _of_live(job: Job, option: str) -> str:
    return (
        f"job {job.id} was {job.state} without {option}: for that, cancel it first"
        f" (adreg jobs cancel {job.id}) and run the same command again"
    )
