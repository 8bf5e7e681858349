"""The command line: a user's mistake is one sentence and exit status 1, before anything runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def run(command_line, tmp_path):
    def run(*arguments):
        ended = command_line(f"--workdir={tmp_path / 'run'}", *arguments)
        assert ended.status == 1
        assert "Traceback" not in ended.error
        assert not (tmp_path / "run").exists()
        return ended.error

    return run


SYNTHETIC = ("--mode=train", "--config=configs/synthetic.py")


def test_leftover_arguments_are_named(run):
    error = run(*SYNTHETIC, "--config.seed", "1", "batch_size=3")
    assert "unexpected arguments: batch_size=3" in error


def test_an_unknown_config_field_is_named(run):
    assert "the config has no field 'queue_lenght'" in run(*SYNTHETIC, "--config.queue_lenght=1")
    assert "the config has no field 'looss'" in run(*SYNTHETIC, "--config.looss.margin=1")


def test_a_queue_that_holds_no_batch_is_named(run):
    assert "error: config.queue_length 7 is smaller than config.batch_size 50" in run(
        *SYNTHETIC, "--config.queue_length=7"
    )


def test_a_mesh_that_there_are_no_devices_for_is_named(run):
    assert "error: config.mesh cannot be: data x fsdp = 3 x 2, but there are 1 devices" in run(
        *SYNTHETIC, "--config.mesh.data=3", "--config.mesh.fsdp=2"
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--coordinator=localhost:1234"],
            "--coordinator, --num_processes and --process_id need --distributed",
        ),
        (
            ["--distributed", "--coordinator=localhost:1234"],
            "--coordinator, --num_processes and --process_id go together",
        ),
        (["--distributed"], "no cluster (Slurm, Open MPI, GKE, TPU) tells"),
    ],
)
def test_flags_of_several_processes_that_do_not_fit_are_named(run, flags, sentence):
    assert f"error: {sentence}" in run(*SYNTHETIC, *flags)


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ("--mode=train", "--mode=train needs --config"),
        ("--mode=parity", "--mode=parity needs --golden or --torch_checkout"),
        ("--mode=golden --golden=new.npz", "--mode=golden needs --torch_checkout"),
        (
            "--mode=parity --golden=a --torch_checkout=b",
            "--mode=parity needs --golden or --torch_checkout, just one of them",
        ),
        (
            "--mode=convert --config=configs/rsicd.py:release",
            "--mode=convert needs --from_torch or --to_torch",
        ),
        ("--mode=export", "--mode=export needs --out"),
        (
            "--mode=search --index=runs/index --query=a --queries=b",
            "--mode=search needs --query or --query_image or --queries, just one of them",
        ),
    ],
)
def test_flags_that_a_mode_needs_are_named(arguments, needed, run):
    assert f"error: {needed}" in run(*arguments.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--golden=nowhere.npz", "error: the golden file nowhere.npz cannot be read: "),
        ("--torch_checkout=nowhere", "error: the checkout of the PyTorch original, "),
        ("--golden=README.md", "error: the golden file README.md cannot be read: "),
    ],
)
def test_a_comparison_with_nothing_is_one_sentence(arguments, sentence, run):
    assert sentence in run("--mode=parity", *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--golden=README.md", "error: README.md exists already, and nothing is written over it"),
        ("--golden_batch_size=3", "batches that divide its queues of 8000 keys, and 3 does not"),
        ("--golden_caption_lengths=9,4", "the shortest first, as 4,14, not 9,4"),
        ("--golden_epochs=first", "epochs are one whole number from 0 for each training step"),
        ("--golden_momentum=all", "error: the momentum is release or paper, or both, not all"),
        ("--golden_seed=-1", "error: a golden file's seed is 0 or more, not -1"),
        ("--golden_seed=2", "error: the checkout of the PyTorch original, "),
    ],
)
def test_a_golden_file_that_cannot_be_written_is_one_sentence(arguments, sentence, run, tmp_path):
    new = tmp_path / "below" / "golden.npz"
    error = run("--mode=golden", "--torch_checkout=nowhere", f"--golden={new}", *arguments.split())
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not new.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--mode=search --query=a", "error: nowhere is no index of images"),
        ("--mode=search --queries=a --captions=b", "error: --captions needs --query_image"),
        ("--mode=index --images=docs --bands=4,3", "error: Bands are one or three numbers from 1"),
    ],
)
def test_a_search_that_cannot_be_is_one_sentence(arguments, sentence, run):
    error = run("--index=nowhere", *arguments.split())
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--mode=compare runs/a", "error: --mode=compare takes 2 to 8 folders of runs, not 1"),
        ("--mode=compare nowhere runs/b", "error: nowhere holds no checkpoints"),
        ("--mode=export --out=docs/x --config=configs/rsicd.py", "find the data of --split"),
    ],
)
def test_runs_that_cannot_be_compared_or_exported_are_one_sentence(arguments, sentence, run):
    error = run(*arguments.split())
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_weights_that_the_config_names_and_are_not_there(run):
    error = run(*SYNTHETIC, "--config.image_encoder.pretrained=nowhere/resnet18.pth")
    assert "error: " in error
    assert "resnet18-f37072fd.pth" in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--config=configs/rsicd.py:foo", "configs/rsicd.py has the variants resnet18, "),
        ("--config=nowhere.py", "error: the config cannot be loaded: "),
    ],
)
def test_a_config_that_is_not_there_is_one_sentence(arguments, sentence, run):
    error = run("--mode=train", *arguments.split())
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("workdir", ["main.py", "main.py/run"])
def test_a_workdir_that_is_a_file_is_named(workdir, run):
    error = run(*SYNTHETIC, f"--workdir={workdir}")
    assert f"error: --workdir={workdir} cannot be a folder: " in error


def write_release(folder: Path, images: int = 6) -> None:
    """A data set in the layout of the release, with captions of our own."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        names = [f"{split}_{i}.png" for i in range(images)]
        for name in names:
            pixels = generator.integers(0, 255, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
        (folder / f"{split}_filename.txt").write_text("\n".join(names) + "\n")
        lines = [f"two boats lie near pier {i} ." for i in range(images) for _ in range(5)]
        (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n")


RELEASE = ("--mode=train", "--config=configs/rsicd.py", "--config.image_size=32")


def damage_image(folder):
    (folder / "images" / "train_3.png").write_bytes(b"not an image")


def remove_image(folder):
    (folder / "images" / "test_2.png").unlink()


def drop_line(folder):
    path = folder / "train_caps.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def empty_line(folder):
    path = folder / "train_caps.txt"
    lines = path.read_text().splitlines()
    lines[6] = ""
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_image, ["train_3.png"]),
        (remove_image, ["test_2.png"]),
        (drop_line, ["train_caps.txt", "29", "6"]),
        (empty_line, ["train_caps.txt", "7"]),
        (lambda folder: None, ["config.batch_size 100 is larger than the training split of"]),
    ],
)
def test_bad_data_is_one_sentence_that_names_the_file(run, tmp_path, damage, words):
    write_release(tmp_path / "data")
    damage(tmp_path / "data")
    error = run(*RELEASE, f"--config.data.dir={tmp_path / 'data'}")
    sentence = next(line for line in error.splitlines() if line.startswith("error: "))
    assert all(word in sentence for word in words), sentence


def test_data_is_prepared_and_described_on_the_command_line(command_line, tmp_path):
    write_release(tmp_path / "data")
    (tmp_path / "data" / "images" / "train_3.png").write_bytes(b"not an image")
    arguments = ["--config=configs/rsicd.py", f"--config.data.dir={tmp_path / 'data'}"]
    settings = ["--config.data.bad_images=skip", "--config.image_size=32"]

    def printed(*more):
        ended = command_line(*arguments, *more)
        assert ended.status == 0, ended.error
        return ended.output + ended.error

    prepared = printed("--mode=prepare", *settings)
    assert "train_3.png: its format is not known" in prepared
    assert "the train split has 5 images, the published one 9828" in prepared
    concepts = printed("--mode=concepts", f"--workdir={tmp_path / 'run'}")
    assert "saved in" in concepts
    assert (tmp_path / "run" / "concepts" / "concepts.png").is_file()
