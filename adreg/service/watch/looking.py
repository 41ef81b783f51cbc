"""A settled folder as the policy takes it: whose it is, what it is called, what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adreg.domain import Base, SubjectKind
from adreg.registry import folder_digests
from adreg.service.merges.merging import make_recipe
from adreg.service.policy.records import Held, Run, Settled
from adreg.service.rules.records import MergeSet, Root
from adreg.service.subjects import class_word_of, kind_of, name_anyhow, subject_digest
from adreg.service.training.runs import TrainingWish, check_with_registry, spec_of, train_key
from adreg.service.watch.scanning import file_sizes
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json


def look_into(
    ws: Workspace, folder: Path, root: Root, mark: str, base: str, *, keep: bool = True
) -> Settled:
    """Reads the folder's photos, unless they were read when it had this very mark before.

    What they are is kept, unless not to `keep` it. `base` is the digest of the root's base. Raises
    what `read_subject` raises, OSError.
    """
    word, kind = told_of(root, folder)
    seen = sha256_json([str(folder), mark, word, kind])
    subject = folder_digests.find(ws.registry.db, seen)
    if subject is None:
        # The mark is the older of the two: what changes meanwhile has another one, and is read
        # again.
        subject = subject_digest(folder, class_word=word, kind=kind)
        if keep:
            folder_digests.put(ws.registry.db, seen, subject)
    return Settled(folder, root, name_anyhow(folder), subject, base, word, kind)


def told_of(root: Root, folder: Path) -> tuple[str, SubjectKind]:
    """The class word and the kind of a subject. UsageError for a subject.toml that is wrong."""
    return root.class_word or class_word_of(folder), kind_of(folder)


def wish_of(
    root: Root, folder: Path, name: str, called: str, class_word: str, kind: SubjectKind
) -> TrainingWish:
    """What a root's rules ask for one of its folders."""
    return TrainingWish(
        folder=folder,
        class_word=class_word,
        name=name,
        called=called,
        method=root.method,
        base=root.base,
        kind=kind,
        line=root.line,
        settings=root.train,
        scorer=root.scorer,
        identity_scorer=root.identity_scorer,
        tags=root.tags,
        # What failed or was cancelled stays so until the user says otherwise, and what was removed
        # is not made again.
        revive=(),
    )


@dataclass
class KnownKeys:
    """What train and merge jobs are known by, each worked out once (policy_records.Keys)."""

    ws: Workspace
    _bases: dict[str, Base] = field(default_factory=dict)
    _trains: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _merges: dict[tuple[str, ...], str] = field(default_factory=dict)
    _kept: dict[tuple[str, str], bool] = field(default_factory=dict)

    def train(self, settled: Settled, called: str) -> str:
        known = (str(settled.folder), settled.subject, called)
        if known not in self._trains:
            self._trains[known] = self._train(settled, called)
        return self._trains[known]

    def _train(self, settled: Settled, called: str) -> str:
        root = settled.root
        # Not as the folder says it by now: who plans for thousands opens none of them.
        folder, word, kind = settled.folder, settled.class_word, settled.kind
        wish = wish_of(root, folder, called, called, word, kind)
        base = self.base(root.base)
        spec = spec_of(wish, base)
        judge = check_with_registry(self.ws, wish, spec, base)
        return train_key([settled.subject], spec, base, root.line, judge)

    def merge(self, wanted: MergeSet, members: Sequence[Held]) -> str:
        known = (wanted.name, *(held.digest for held in members))
        if known not in self._merges:
            recipe, _ = make_recipe(
                self.ws, [held.digest for held in members], wanted.method, **wanted.options
            )
            self._merges[known] = recipe.digest()
        return self._merges[known]

    def kept(self, settled: Settled, run: Run) -> bool:
        known = (settled.subject, run.subject)
        if known not in self._kept:
            copies = self.ws.registry.store.subject_path(run.subject)
            sizes, now = file_sizes(copies), file_sizes(settled.folder)
            same = sum(now.get(name) == size for name, size in sizes.items())
            self._kept[known] = 2 * same > len(sizes)
        return self._kept[known]

    def base(self, ref: str) -> Base:
        """Raises what `Workspace.base` raises."""
        if ref not in self._bases:
            self._bases[ref] = self.ws.base(ref)
        return self._bases[ref]
