"""Adapters as a merge sees them before reading a weight: which count, and under which triggers.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from adreg.domain import NAMELESS_METHODS, Base, Concept, Json
from adreg.errors import UsageError
from adreg.formats.probe import match, probe, token_shape
from adreg.merge.recipe import AdapterRef


@dataclass(frozen=True)
class Operand:
    """One adapter as its file's header describes it.

    `modules` maps the base's module keys to ranks; `vectors` maps each trigger the file has an
    embedding for to its number of vectors; `renamed` maps such triggers to their names in the
    checkpoint where these differ (`concepts` carries the new ones).
    """

    name: str
    digest: str
    weight: float
    modules: Mapping[str, int]
    concepts: tuple[Concept, ...]
    vectors: Mapping[str, int] = field(default_factory=dict)
    method: str | None = None
    line: str | None = None
    continued_from: str | None = None
    base_digest: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    def phrases(self) -> list[str]:
        """How prompts speak of the concepts, as training did: "<rex> dog", "drawing in the style of
        <ink>".

        C-LoRA (arXiv:2304.06027) and others train their tokens without the class noun, so there
        it is "<rex>" alone.
        """
        return [self._phrase(concept) for concept in self.concepts]

    def _phrase(self, concept: Concept) -> str:
        if self.method in NAMELESS_METHODS or not concept.class_word:
            return concept.trigger
        if concept.kind == "style":
            return f"{concept.class_word} in the style of {concept.trigger}"
        return f"{concept.trigger} {concept.class_word}"


def read_operand(ref: AdapterRef, path: Path, base: Base) -> Operand:
    """The operand in a file, from its header alone.

    The recipe's concepts go before the file's. Raises ArtifactError, naming file, key and both
    shapes, where the file does not fit the base.
    """
    found = probe(path)
    manifest = found.manifest
    return Operand(
        name=ref.name,
        digest=ref.digest,
        weight=ref.weight,
        modules={
            module: found.modules[raw][2] for module, raw in match(found, base.modules).items()
        },
        concepts=ref.concepts or found.concepts,
        vectors={t: token_shape(found.header, keys)[0] for t, keys in found.tokens.items()},
        method=manifest.get("method"),
        line=manifest.get("line"),
        continued_from=manifest.get("continued_from"),
        base_digest=manifest.get("base", {}).get("digest"),
    )


def keep_latest_of_lines(
    operands: Sequence[Operand],
) -> tuple[tuple[Operand, ...], tuple[str, ...]]:
    """The operands less those that a later task of their own line contains, and what was said.

    The artefact of task t holds all earlier tasks (design, "A continual line"), so its concepts
    begin with theirs. Raises UsageError for two that share a beginning but then part: their
    common past would count twice.
    """
    kept, said = [], []
    for operand in operands:
        later = next((other for other in operands if _continues(other, operand)), None)
        if later is None:
            kept.append(operand)
        else:
            said.append(f"{operand.name} is left out: {later.name} continues its line")
    for one, other in combinations(kept, 2):
        if _same_line(one, other):
            raise UsageError(
                f"{one.name!r} and {other.name!r} are two branches of line {one.line!r}:"
                " what they learnt before they parted would count twice",
                remedy="merge one of them",
            )
    return tuple(kept), tuple(said)


def _continues(later: Operand, earlier: Operand) -> bool:
    if later.continued_from == earlier.digest:
        return True
    learnt = earlier.concepts
    return (
        _same_line(later, earlier)
        and len(later.concepts) > len(learnt)
        and later.concepts[: len(learnt)] == learnt
    )


def _same_line(one: Operand, other: Operand) -> bool:
    """Lines of one name on two machines may be strangers; a common first concept tells."""
    named = one.line is not None and one.line == other.line
    return named and one.concepts[:1] == other.concepts[:1] != ()


def rename_collisions(
    operands: Sequence[Operand], taken: Iterable[str] = ()
) -> tuple[tuple[Operand, ...], tuple[Json, ...]]:
    """The operands with triggers that differ when case-folded, and which were renamed.

    Of two adapters with one trigger the later is renamed: `<rex>` to `<rex-2>`. `taken` are the
    tokens the base has already. A trigger without an embedding in the file is plain words and
    stays as it is.
    """
    used = {token.casefold() for token in taken}
    changed: list[Operand] = []
    renames: list[Json] = []
    for operand in operands:
        fresh: dict[str, str] = {}
        for trigger, vectors in operand.vectors.items():
            new = _free_name(trigger, vectors, used)
            used |= _token_names(new, vectors)
            if new != trigger:
                fresh[trigger] = new
                renames.append({"adapter": operand.name, "old": trigger, "new": new})
        changed.append(_rename(operand, fresh))
    return tuple(changed), tuple(renames)


def _rename(operand: Operand, fresh: Mapping[str, str]) -> Operand:
    concepts = tuple(
        replace(concept, trigger=fresh.get(concept.trigger, concept.trigger))
        for concept in operand.concepts
    )
    return replace(operand, concepts=concepts, renamed=dict(fresh))


def _free_name(trigger: str, vectors: int, used: set[str]) -> str:
    name, number = trigger, 1
    while _token_names(name, vectors) & used:
        number += 1
        name = f"{trigger[:-1]}-{number}>" if trigger.endswith(">") else f"{trigger}-{number}"
    return name


def _token_names(trigger: str, vectors: int) -> set[str]:
    """All vocabulary entries of a trigger, case-folded; the further vectors' as diffusers does."""
    name = trigger.casefold()
    return {name, *(f"{name}_{index}" for index in range(1, vectors))}
