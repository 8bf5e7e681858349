"""The command line: a user's mistake is one sentence and exit status 1, before anything runs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

SYNTHETIC = "--mode=train --config=configs/synthetic.py"
RSICD = "--mode=train --config=configs/rsicd.py"
DISTRIBUTED = f"{SYNTHETIC} --distributed"
GOLDEN = "--mode=golden --torch_checkout=nowhere --golden=nowhere.npz"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (f"{SYNTHETIC} --config.seed 1 batch_size=3", "unexpected arguments: batch_size=3"),
        (f"{SYNTHETIC} --config.queue_length=7", "7 is smaller than config.batch_size 50"),
        (
            f"{SYNTHETIC} --config.mesh.data=3 --config.mesh.fsdp=2",
            "config.mesh cannot be: data x fsdp = 3 x 2, but there are 1 devices",
        ),
        (
            f"{SYNTHETIC} --coordinator=localhost:1234",
            "--coordinator, --num_processes and --process_id need --distributed",
        ),
        (
            f"{DISTRIBUTED} --coordinator=localhost:1234",
            "--coordinator, --num_processes and --process_id go together",
        ),
        (DISTRIBUTED, "no cluster (Slurm, Open MPI, GKE, TPU) tells"),
        (
            f"{SYNTHETIC} --config.image_encoder.pretrained=nowhere/resnet18.pth",
            "resnet18-f37072fd.pth",
        ),
        # What a mode needs.
        ("--mode=train", "--mode=train needs --config"),
        ("--mode=parity", "--mode=parity needs --golden or --torch_checkout"),
        ("--mode=golden --golden=new.npz", "--mode=golden needs --torch_checkout"),
        (
            "--mode=parity --golden=a --torch_checkout=b",
            "--mode=parity needs --golden or --torch_checkout, just one of them",
        ),
        (f"{RSICD} --mode=convert", "--mode=convert needs --from_torch or --to_torch"),
        ("--mode=export --workdir= --out=x", "--mode=export needs --workdir or --weights"),
        ("--mode=export", "--mode=export needs --out"),
        ("--mode=export --workdir= --weights=a.pt --out=x", "--weights needs --preset"),
        (
            "--mode=export --workdir= --weights=a.pt --preset=B-32 --out=x",
            "there is no preset 'B-32'; there are RN50, ViT-B-32, ",
        ),
        (
            "--mode=export --workdir= --weights=a.pt --preset=RN50 --split=test --out=x",
            "--split is for the --workdir of a run, not for --weights",
        ),
        (
            "--mode=export --preset=RN50 --out=x",
            "--preset, --vocabulary and --cleaning are for --weights, which is missing",
        ),
        (
            "--mode=index --cleaning=lower --images=a --index=b",
            "--preset, --vocabulary and --cleaning are for --weights, which is missing",
        ),
        (f"{RSICD} --weights=a.pt", "train does not take --weights: fields of the config do that"),
        (f"{SYNTHETIC} --k=5", "--mode=train does not take --k"),
        (
            "--mode=evaluate --weights=a.pt --preset=RN50",
            "--mode=evaluate with --weights needs --config",
        ),
        (
            "--mode=search --index=runs/index --query=a --queries=b",
            "--mode=search needs --query or --query_image or --queries, just one of them",
        ),
        # What a mode finds wrong.
        ("--mode=parity --golden=nowhere.npz", "the golden file nowhere.npz cannot be read: "),
        ("--mode=parity --golden=README.md", "the golden file README.md cannot be read: "),
        ("--mode=parity --torch_checkout=nowhere", "the checkout of the PyTorch original, "),
        (f"{GOLDEN} --golden=README.md", "README.md exists already, and nothing is written over"),
        (f"{GOLDEN} --golden_batch_size=3", "its queues of 8000 keys, and 3 does not"),
        (f"{GOLDEN} --golden_caption_lengths=9,4", "the shortest first, as 4,14, not 9,4"),
        (f"{GOLDEN} --golden_epochs=first", "epochs are one whole number from 0 for each"),
        (f"{GOLDEN} --golden_momentum=all", "the momentum is release or paper, or both, not all"),
        (f"{GOLDEN} --golden_seed=-1", "a golden file's seed is 0 or more, not -1"),
        (f"{GOLDEN} --golden_seed=2", "the checkout of the PyTorch original, "),
        ("--mode=search --index=nowhere --query=a", "nowhere is no index of images"),
        (
            "--mode=search --index=nowhere --queries=a --captions=b",
            "--captions needs --query_image",
        ),
        (
            "--mode=index --index=nowhere --images=docs --bands=4,3",
            "Bands are one or three numbers from 1",
        ),
        ("--mode=compare runs/a", "--mode=compare takes 2 to 8 folders of runs, not 1"),
        ("--mode=compare nowhere runs/b", "nowhere holds no checkpoints"),
        (f"{RSICD} --mode=export --out=docs/x", "find the data of --split"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, refused):
    error = refused(*arguments.split())
    assert "error: " in error
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("nowhere.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: --mode is missing\n"),
        (["train"], "error: --mode is missing; did you mean --mode=train?"),
        (["--mode=trian"], "error: there is no --mode=trian; did you mean --mode=train?"),
    ],
)
def test_without_a_mode_all_modes_are_told_with_their_flags(arguments, sentence, refused):
    error = refused(*arguments)
    assert sentence in error
    assert "  train     trains, or goes on with a training\n" in error
    assert "            --config --workdir [--distributed]" in error


def test_help_has_modes_flags_and_where_the_fields_are(command_line):
    ended = command_line("--help")
    assert ended.status == 0
    for words in ("--mode=MODE", "  search    finds images", "  --query   ", "docs/config.md"):
        assert words in ended.output


def test_the_three_commands_are_one():
    commands = [[sys.executable, "main.py"], [sys.executable, "-m", "kamcl_jax"]]
    said = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
        for command in commands
    ]
    assert said[0].stdout == said[1].stdout != ""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"kamcl": "kamcl_jax.command_line:run"}


def test_help_imports_no_mode_and_no_jax():
    code = "import sys; from kamcl_jax import command_line; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "kamcl_jax.config.fields" in loaded
    assert not loaded & {"jax", "flax", "numpy", "tensorflow_datasets", "kamcl_jax.train"}


@pytest.mark.parametrize("workdir", ["main.py", "main.py/run"])
def test_a_workdir_that_is_a_file_is_named(workdir, refused):
    error = refused(*SYNTHETIC.split(), f"--workdir={workdir}")
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
def test_bad_data_is_one_sentence_that_names_the_file(refused, tmp_path, damage, words):
    write_release(tmp_path / "data")
    damage(tmp_path / "data")
    error = refused(*RELEASE, f"--config.data.dir={tmp_path / 'data'}")
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
