"""The drawn world: repeatable pictures, honest captions, individuals that stay themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.pocket.places import PLACES
from adreg.pocket.styles import TECHNIQUES, draw_style, style_pictures, write_styles
from adreg.pocket.subjects import draw_subject, photos, rivals, write_subjects
from adreg.pocket.world import (
    CLASSES,
    COLOURS,
    HELD_OUT,
    PATTERN_WORDS,
    PLACE_PHRASES,
    Scene,
    caption,
    draw_scene,
    pixels,
    render,
    scenes,
)


def test_same_seed_gives_same_pixels() -> None:
    first, second = ([pixels(render(s)) for s in scenes(5, seed=7)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], pixels(render(next(scenes(1, seed=8)))))


def test_pictures_are_64_rgb_and_not_flat() -> None:
    for scene in scenes(12, seed=1):
        drawn = pixels(render(scene))
        assert drawn.shape == (64, 64, 3)
        assert drawn.std() > 15


@pytest.mark.parametrize("class_word", CLASSES)
def test_a_class_changes_the_picture(class_word: str) -> None:
    """The thing is on the picture, not just the place."""
    scene = draw_scene(np.random.default_rng(3), class_word, "beach")
    empty = Scene((), scene.place, scene.seed)
    assert (pixels(render(scene)) != pixels(render(empty))).any(axis=2).mean() > 0.08


def test_every_class_and_place_occurs() -> None:
    drawn = list(scenes(400, seed=0))
    assert {thing.class_word for scene in drawn for thing in scene.things} == set(CLASSES)
    assert {scene.place for scene in drawn} == set(PLACES)
    assert 0.25 < np.mean([len(scene.things) == 2 for scene in drawn]) < 0.45


def test_no_training_scene_shows_a_held_out_pair() -> None:
    drawn = [thing for scene in scenes(1500, seed=0) for thing in scene.things]
    seen = {(thing.class_word, thing.colour) for thing in drawn}
    assert len(HELD_OUT) == len(CLASSES) == len({word for word, _ in HELD_OUT})
    assert not seen & HELD_OUT
    assert len(seen) == len(CLASSES) * (len(COLOURS) - 1)


def test_a_held_out_pair_is_drawn_when_asked_for() -> None:
    word, colour = min(HELD_OUT)
    scene = draw_scene(np.random.default_rng(0), word, colour=colour)
    assert [(thing.class_word, thing.colour) for thing in scene.things] == [(word, colour)]


def named(words: list[str], vocabulary: object) -> set[str]:
    return {word for word in words if word in vocabulary}  # type: ignore[operator]


def test_captions_name_only_what_is_drawn() -> None:
    rng = np.random.default_rng(5)
    for scene in scenes(200, seed=2):
        text = caption(scene, rng)
        words = text.split()
        things = scene.things
        assert named(words, CLASSES) == {thing.class_word for thing in things}
        assert named(words, COLOURS) <= {thing.colour for thing in things}
        assert named(words, PATTERN_WORDS) <= {thing.pattern for thing in things}
        for place, phrases in PLACE_PHRASES.items():
            assert place == scene.place or not any(
                text.endswith(" " + phrase) for phrase in phrases
            )


def test_full_captions_name_colour_and_place() -> None:
    rng = np.random.default_rng(6)
    for scene in scenes(50, seed=3):
        text = caption(scene, rng, full=True)
        assert all(thing.colour in text for thing in scene.things)
        assert text.endswith(PLACE_PHRASES[scene.place])


def test_some_captions_leave_things_unsaid() -> None:
    rng = np.random.default_rng(8)
    texts = [caption(scene, rng) for scene in scenes(200, seed=4)]
    assert any(not named(text.split(), COLOURS) for text in texts)
    assert any(text.split()[-1] in CLASSES for text in texts)


def test_no_phrase_of_one_place_is_anothers() -> None:
    phrases = [phrase for group in PLACE_PHRASES.values() for phrase in group]
    assert len(phrases) == len(set(phrases))


def test_the_same_seed_is_the_same_subject() -> None:
    assert draw_subject("dog", 4) == draw_subject("dog", 4)
    a, b = photos(draw_subject("dog", 4), 3, 1), photos(draw_subject("dog", 4), 3, 1)
    assert all(np.array_equal(pixels(x), pixels(y)) for x, y in zip(a, b, strict=True))


def test_other_seeds_are_other_subjects() -> None:
    assert len({draw_subject("mug", seed) for seed in range(20)}) == 20


@pytest.mark.parametrize("class_word", CLASSES)
def test_photos_of_a_subject_share_its_coat(class_word: str) -> None:
    """Its first colour is in every photo, and no photo is like another."""
    subject = draw_subject(class_word, 2)
    pictures = [pixels(p).astype(int) for p in photos(subject, 4, 9)]
    for picture in pictures:
        near = np.abs(picture - np.array(subject.coat[0])).max(axis=2) < 12
        assert near.mean() > 0.02
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_coat_has_more_colours_than_a_caption_names() -> None:
    for seed in range(20):
        coat = draw_subject("cat", seed).coat
        assert len(set(coat)) == 3
        assert set(coat) <= set(COLOURS.values())


def test_rivals_differ_in_nothing_a_caption_names() -> None:
    subject = draw_subject("cat", 3)
    others = rivals(subject, 3)
    assert len({subject, *others}) == 10
    assert {(s.class_word, s.coat) for s in others} == {(subject.class_word, subject.coat)}
    assert others == rivals(subject, 3)


def test_training_individuals_come_from_other_dice() -> None:
    public = {draw_subject("dog", seed, coat=0) for seed in range(50)}
    assert not public & {draw_subject("dog", seed, coat=0, training=True) for seed in range(50)}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_style_is_the_same_in_all_its_pictures(technique: str) -> None:
    """It changes every picture, and says nothing of what is on it."""
    style = draw_style(1, technique)
    assert style == draw_style(1, technique)
    pictures = [pixels(p) for p in style_pictures(style, 10, seed=2)]
    assert all(p.shape == (64, 64, 3) and p.std() > 5 for p in pictures)
    again = [pixels(p) for p in style_pictures(style, 10, seed=2)]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))
    assert len({p.tobytes() for p in pictures}) == 10


def test_contours_are_of_two_inks_only() -> None:
    """Every pixel lies on the line between ink and paper."""
    style = draw_style(3, "contour")
    ink, paper = (np.array(style.inks[i], dtype=float) for i in (0, 2))
    found = pixels(style_pictures(style, 1, 0)[0]).reshape(-1, 3) - ink
    along = found @ (paper - ink) / ((paper - ink) @ (paper - ink))
    assert np.abs(found - along[:, None] * (paper - ink)).max() < 2


def test_a_mosaic_has_tiles_of_four_pixels() -> None:
    picture = pixels(style_pictures(draw_style(3, "mosaic"), 1, 0)[0])
    assert np.array_equal(picture, picture[::4, ::4].repeat(4, 0).repeat(4, 1))


def test_style_folders_take_the_techniques_in_turn(tmp_path: Path) -> None:
    folders = write_styles(tmp_path, ["ink", "pen", "tile"], 2, seed=0)
    assert [f.name for f in folders] == ["ink", "pen", "tile"]
    assert all(len(list(folder.glob("*.png"))) == 2 for folder in folders)


def test_folders_are_written_as_a_user_would(tmp_path: Path) -> None:
    folders = write_subjects(tmp_path, {"rex": "dog", "tom": "cat"}, 3, seed=0)
    assert [f.name for f in folders] == ["rex", "tom"]
    assert sorted(p.name for p in (tmp_path / "rex").iterdir()) == ["00.png", "01.png", "02.png"]
    with Image.open(tmp_path / "tom" / "02.png") as picture:
        assert picture.size == (64, 64)
