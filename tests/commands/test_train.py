"""What `adreg train` refuses before anything runs: its options reach the spec."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.cli import Cli
from tests.tiny import photos


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cat-prompts", "all"), "cat_prompts cannot be 'all'"),
        (("--method", "lora", "--cat-weight", "2"), "cat_weight cannot be 2.0"),
        (("--cat-weight", "0", "--cat-every", "2"), "cat_prompts and cat_every need one above 0"),
        (("--method", "c-lora", "--penalty", "hard"), "penalty cannot be 'hard'"),
        (("--method", "lora", "--penalty-weight", "3"), "penalty_weight cannot be 3.0"),
        (("--accumulate", "5"), "accumulate cannot be 5"),
        (("--precision", "fp8"), "precision cannot be 'fp8'"),
        (("--method", "orthogonal", "--line", "pets"), "--line is for c-lora, sequential, ewc"),
        (("--stop-when", "identity<0.5"), "stop_when cannot be 'identity<0.5'"),
        (("--stop-when", "loss<1", "--sample-every", "0"), "sample_every cannot be 0"),
        (("--stop-when", "identity>1"), "stop_when cannot be 'identity>1'"),
        (("--stop-when", "loss<-1"), "stop_when cannot be 'loss<-1'"),
        (("--stop-when", ""), "stop_when cannot be ''"),
        (("--batch", "0"), "batch cannot be 0 hint: --batch: give a value from 1"),
        (("--ema", "1"), "ema cannot be 1.0 hint: --ema: give a value from 0"),
        (("--learning-rate", "nan"), "learning_rate cannot be nan hint: --learning-rate:"),
        (("--token-learning-rate", "2"), "cannot be 2.0 hint: --token-learning-rate: give"),
        (
            ("--method", "textual-inversion", "--learning-rate", "0.1"),
            "--learning-rate: leave it out: what it is for does not learn with textual-inversion",
        ),
        (
            ("--method", "dreambooth", "--token-learning-rate", "0.1"),
            "--token-learning-rate: leave it out: what it is for does not learn with dreambooth",
        ),
        (("--min-snr", "1e7"), "min_snr_gamma cannot be 10000000.0 hint: --min-snr: give"),
        (("--kind", "beast"), "--kind cannot be 'beast'"),
        (("--joint",), "--joint: one folder is one concept"),
        (("--identity-scorer", "pocket"), "nothing of this run is measured by it"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    here: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    subject = photos(tmp_path / "rex", 2, 32)
    error = here.refused(2, "train", subject, "--class", "dog", *options)
    assert said in " ".join(error.split())


def test_a_name_is_for_one_adapter(here: Cli, tmp_path: Path) -> None:
    folders = [photos(tmp_path / name, 2, 32) for name in ("rex", "tom")]
    error = here.refused(2, "train", *folders, "--name", "duo")
    assert "2 folders become as many adapters" in " ".join(error.split())


def test_a_joint_plan_tells_every_image_with_its_own_prompts(here: Cli, tmp_path: Path) -> None:
    folders = [photos(tmp_path / name, 1, 32) for name in ("cat", "dog")]
    plan = here.json("train", *folders, "--joint", "--method", "lora", "--dry-run")
    alone = here.json("train", folders[0], "--method", "lora", "--dry-run")
    assert (plan["name"], plan["trigger"]) == ("cat-dog", "<cat>")
    assert plan["also"] == [{"trigger": "<dog>", "class_word": "dog", "kind": "object"}]
    assert [(image["file"], image["prompts"][0]) for image in plan["images"]] == [
        ("cat/00.png", "a photo of a <cat> cat"),
        ("dog/00.png", "a photo of a <dog> dog"),
    ]
    # As many steps for each concept as for one alone.
    assert plan["steps"] == 2 * alone["steps"]
    assert plan.keys() == alone.keys()


def test_a_joint_plan_tells_stages_and_class_pictures_of_each_concept(
    here: Cli, tmp_path: Path
) -> None:
    folders = [
        photos(tmp_path / name, 1 + at, 32) for at, name in enumerate(("cat", "dog", "dog-2"))
    ]
    joint = ("train", *folders, "--joint", "--dry-run")
    staged = here.json(*joint, "--method", "two-stage")["concepts"]
    alone = here.json("train", folders[0], "--method", "two-stage", "--dry-run")
    # In all as many steps for each as for one alone; two images come up twice as often as one.
    shares = [half * alone["steps"] // 2 for half in (1, 2, 3)]
    assert [concept["steps"] for concept in staged] == shares
    first = alone["spec"]["embedding_steps"]
    assert [concept["embedding_steps"] for concept in staged] == [first // 2, first, 3 * first // 2]
    assert [concept["prompts"] for concept in staged] == [
        [f"a photo of <{trigger}> {word}"]
        for trigger, word in (("cat", "cat"), ("dog", "dog"), ("dog-2", "dog"))
    ]
    told = here.ok(*joint, "--method", "dreambooth", "--prior-images", "4").out
    for line in (
        "<dog>: 2 images, about 300 of the steps",
        "prompt: a photo of a <dog-2> dog",
        'class pictures: 4 of "a photo of a cat", to be made first, for <cat>',
        'class pictures: 4 of "a photo of a dog", to be made first, for <dog>, <dog-2>',
    ):
        assert line in told


def test_an_empty_path_is_not_the_working_directory(here: Cli, tmp_path: Path) -> None:
    subject = photos(tmp_path / "dog", 1, 32)
    for given in (("",), (subject, ""), (subject, " ", "--joint")):
        error = here.refused(2, "train", *given, "--dry-run")
        assert "a folder's path is empty" in error
    assert "a folder's path is empty" in here.refused(2, "watch", "", "--once")
    inside = replace(here, cwd=subject)
    plan = inside.json("train", ".", "--dry-run")
    assert (plan["name"], plan["class"]) == ("dog", "dog")


def test_the_options_of_learning_reach_the_spec(here: Cli, tmp_path: Path) -> None:
    subject = photos(tmp_path / "dog", 1, 32)
    given = {"batch": 3, "learning_rate": 0.5, "token_learning_rate": 0.25, "ema": 0.75}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    plan = here.json("train", subject, *options, "--dry-run")
    assert {name: plan["spec"][name] for name in given} == given
    assert (plan["passes"]["learning"], plan["passes"]["still"]) == (4, 1)
    told = here.ok("train", subject, *options, "--dry-run").out
    assert "batch 3; rank 4; rate 0.5 for the weights and 0.25 for the token" in told


def test_two_adapters_of_one_name_are_refused_before_the_first_is_trained(
    here: Cli, tmp_path: Path
) -> None:
    folders = [photos(tmp_path / at / "dog", 1, 32) for at in ("here", "there")]
    error = here.refused(2, "train", *folders)
    assert "both adapters would be called dog" in " ".join(error.split())
    assert here.json("jobs", "list") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('clas = "dog"', "subject.toml: no key 'clas' hint: keys are class, kind"),
        ("class = dog", "subject.toml: not valid TOML"),
        ("class = 3", "subject.toml: class must be a word"),
    ],
)
def test_a_wrong_subject_file_is_named_with_its_key_and_what_to_write(
    here: Cli, tmp_path: Path, line: str, said: str
) -> None:
    subject = photos(tmp_path / "dog", 1, 32)
    (subject / "subject.toml").write_text(line)
    assert said in " ".join(here.refused(2, "train", subject).split())


def test_files_that_cannot_be_trained_on_are_told_with_why(here: Cli, tmp_path: Path) -> None:
    subject = photos(tmp_path / "größe 1 猫", 1, 32)
    good = subject / "00.png"
    (subject / "empty.png").touch()
    (subject / "text.png").write_text("no image")
    (subject / "link.png").symlink_to(tmp_path / "nowhere.png")
    (subject / "ünï 猫.png").symlink_to(good)
    (subject / "torn.png").write_bytes(good.read_bytes()[:60])
    Image.new("RGB", (1, 1)).save(subject / "dot.png")
    Image.new("I;16", (32, 32)).save(subject / "deep.png")
    Image.new("CMYK", (32, 32)).save(subject / "print.jpg")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(subject / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "dog").symlink_to(subject)
    plan = here.json("train", tmp_path / "dog", "--class", "dog", "--name", "rex", "--dry-run")
    assert {image["file"] for image in plan["images"]} == {"00.png", "ünï 猫.png", "print.jpg"}
    told = plan["set_aside"]
    assert told.keys() == {
        "empty.png", "text.png", "link.png", "torn.png", "dot.png", "deep.png", "moving.gif",
    }  # fmt: skip
    assert told["empty.png"] == "is empty"
    assert told["text.png"] == "cannot be read: no PNG, JPEG or WEBP in it"
    assert told["link.png"] == "cannot be read: No such file or directory"
    assert told["dot.png"] == "1 x 1 pixels are too few to learn from"
    assert "save it with 8 bits each" in told["deep.png"]
    assert told["moving.gif"] == "no PNG, JPEG or WEBP file"


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is there")
def test_logs_need_tensorboard(here: Cli, tmp_path: Path) -> None:
    subject = photos(tmp_path / "dog", 1, 32)
    error = here.refused(2, "train", subject, "--tensorboard", tmp_path / "logs")
    assert "pip install tensorboard" in error
