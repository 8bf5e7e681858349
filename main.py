"""Command line of KAMCL: flags only.

python main.py --mode=train --config=configs/synthetic.py --workdir=runs/demo
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from configs import rsicd
from input_pipeline.errors import DataError
from input_pipeline.images import bands
from kamcl_jax.benchmark import command as benchmark
from kamcl_jax.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    ExportError,
    GoldenFileError,
    PretrainedError,
    TorchOriginalError,
)
from kamcl_jax.evaluate import concepts, data_report, evaluate, finished_run
from kamcl_jax.evaluate.compare import command as comparison
from kamcl_jax.export import command as export
from kamcl_jax.parallel import compilation, hosts
from kamcl_jax.runs.checkpoints import silence_writers
from kamcl_jax.search import command, index_command
from kamcl_jax.search.command import Wishes
from kamcl_jax.serving import server
from kamcl_jax.torch_release import command as parity
from kamcl_jax.torch_release import convert, golden_writer
from kamcl_jax.train import folds, loop
from kamcl_jax.train.interruption import Stopped


class Mode(NamedTuple):
    """What `--mode` can be: the flags that it needs (of a group, just one), and what it runs."""

    needs: tuple[str | tuple[str, ...], ...]
    run: Callable[..., object]


_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, events, report.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/synthetic.py.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "train, evaluate, folds: this process is one of several, on one or more hosts.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "distributed: HOST:PORT of process 0; a cluster tells it by itself."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "distributed: with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "distributed: of this process, from 0; with --coordinator."
)
_FROM_TORCH = flags.DEFINE_string(
    "from_torch", None, "convert: checkpoint of the PyTorch release to make a run of."
)
_TO_TORCH = flags.DEFINE_string(
    "to_torch", None, "convert: file to write the run's best checkpoint to, as the release does."
)
_GOLDEN = flags.DEFINE_string(
    "golden",
    None,
    "parity: .npz of what the PyTorch original computes from known weights, compared with ours. "
    "golden: the file to write that to.",
)
_TORCH_CHECKOUT = flags.DEFINE_string(
    "torch_checkout",
    None,
    "parity, benchmark: clone of the PyTorch original, run beside ours. "
    "golden: clone that the file is computed with.",
)
_GOLDEN_SEED = flags.DEFINE_integer("golden_seed", 0, "golden: of weights and batches.")
_GOLDEN_BATCH_SIZE = flags.DEFINE_integer(
    "golden_batch_size", 8, "golden: pairs in a batch; it divides the original's queue of 8000."
)
_GOLDEN_CAPTION_LENGTHS = flags.DEFINE_list(
    "golden_caption_lengths", ["4", "14"], "golden: words of the shortest and the longest caption."
)
_GOLDEN_EPOCHS = flags.DEFINE_list(
    "golden_epochs",
    ["0", "10", "11", "12"],
    "golden: the epoch that each training step belongs to, a step each; from 11 on the concept "
    "loss takes part.",
)
_GOLDEN_MOMENTUM = flags.DEFINE_list(
    "golden_momentum",
    ["release", "paper"],
    "golden: momentum updates to train with, the release's, the paper's (of all tensors) or both.",
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "export, compare: folder to write to (compare: runs/comparison if not given). "
    "search: picture to write (.png, INDEX/found.png if not given); of --queries .csv or .jsonl.",
)
_SPLIT = flags.DEFINE_enum(
    "split", None, list(finished_run.SPLITS), "export: whose embeddings to write too."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float64", ["float64", "float32"], "parity: of our arithmetic, with --golden."
)
_INDEX = flags.DEFINE_string("index", None, "index, search, serve: folder of the index.")
_IMAGES = flags.DEFINE_string("images", None, "index: folder of images; those below it count, too.")
_BANDS = flags.DEFINE_list(
    "bands", [], "index: of TIFF files, from 1, for red, green and blue, as 4,3,2; or a single one."
)
_STRETCH = flags.DEFINE_list(
    "stretch", [], "index: percentiles of TIFF files' bands that become 0 and 255, as 2,98."
)
_QUERY = flags.DEFINE_string("query", None, "search: sentence to find images for.")
_QUERY_IMAGE = flags.DEFINE_string("query_image", None, "search: file to find similar images for.")
_QUERIES = flags.DEFINE_string("queries", None, "search: file of sentences, one a line.")
_CAPTIONS = flags.DEFINE_string(
    "captions", None, "search: file of captions, one a line, to find some for --query_image."
)
_K = flags.DEFINE_integer("k", 10, "search: how many images a query finds.", lower_bound=1)
_FAISS = flags.DEFINE_bool("faiss", False, "search: approximately, through FAISS.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "serve: name or address to listen at.")
_PORT = flags.DEFINE_integer(
    "port", 8000, "serve: to listen at; 0 for a free one.", lower_bound=0, upper_bound=65535
)


def main(argv: list[str]) -> None:
    """Runs the mode; a user's mistake ends with one sentence and exit status 1."""
    runs = argv[1:]
    if runs and _MODE.value != "compare":
        sys.exit(
            f"error: unexpected arguments: {' '.join(runs)} "
            "(a config field is set as --config.FIELD=VALUE)"
        )
    # What orbax logs as an error it raises as well, and that is told in one sentence.
    logging.set_verbosity(logging.FATAL)
    silence_writers()
    mode = MODES[str(_MODE.value)]
    _check_flags(str(_MODE.value), mode)
    try:
        _join_hosts(str(_MODE.value))
        if _MODE.value in COMPILING_MODES:
            compilation.keep_programs()
        mode.run(*runs)
    except Stopped as stopped:
        _end(f"\n{stopped}", stopped.exit_status)
    except (
        CheckpointError,
        ConfigError,
        DataError,
        DivergedError,
        ExportError,
        GoldenFileError,
        PretrainedError,
        TorchOriginalError,
        OSError,
    ) as error:
        _end(f"error: {error}", 1)
    except KeyboardInterrupt:
        _end(f"\ninterrupted{GOES_ON.get(str(_MODE.value), '')}", 130)
    except SystemExit as ended:
        if _DISTRIBUTED.value and isinstance(ended.code, str):
            _end(ended.code, 1)
        raise
    except BaseException:
        if _DISTRIBUTED.value:
            traceback.print_exc()
            _end("", 1)
        raise


def _end(sentence: str, status: int) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)
    if _DISTRIBUTED.value:
        # An ordinary exit waits for the other processes, which wait for this one.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _join_hosts(mode: str) -> None:
    place = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value:
        if mode not in MODEL_MODES:
            raise ConfigError(f"--mode={mode} runs in one process: leave out --distributed")
        hosts.initialise(*place)
    elif any(value is not None for value in place):
        raise ConfigError("--coordinator, --num_processes and --process_id need --distributed")


def _check_flags(name: str, mode: Mode) -> None:
    for need in mode.needs:
        choices = (need,) if isinstance(need, str) else need
        given = [choice for choice in choices if flags.FLAGS[choice].value]
        if len(given) != 1:
            one_of = " or ".join(f"--{choice}" for choice in choices)
            just = ", just one of them" if given else ""
            sys.exit(f"error: --mode={name} needs {one_of}{just}")


def _evaluate() -> None:
    config = _load_config() if flags.FLAGS["config"].value else None
    evaluate.evaluate(config, _path(_WORKDIR))


def _convert() -> None:
    if _FROM_TORCH.value:
        convert.from_torch(_load_config(), _path(_WORKDIR), _path(_FROM_TORCH))
    else:
        convert.to_torch(_load_config(), _path(_WORKDIR), _path(_TO_TORCH))


def _concepts() -> None:
    concepts.report(_load_config(), _path(_WORKDIR) / "concepts" if _WORKDIR.value else None)


def _benchmark() -> None:
    checkout = _path(_TORCH_CHECKOUT) if _TORCH_CHECKOUT.value else None
    benchmark.run(_load_config(), _path(_WORKDIR), checkout)


def _index() -> None:
    choice = bands.parse_choice(_BANDS.value, _STRETCH.value)
    index_command.run(_path(_WORKDIR), _path(_IMAGES), _path(_INDEX), choice)


def _search() -> None:
    index, out = _path(_INDEX), _path(_OUT) if _OUT.value else None
    captions = _path(_CAPTIONS) if _CAPTIONS.value else None
    if captions and not _QUERY_IMAGE.value:
        sys.exit("error: --captions needs --query_image")
    wishes = Wishes(int(_K.value or 0), bool(_FAISS.value), out)
    if _QUERY.value:
        command.by_sentence(index, str(_QUERY.value), wishes)
    elif _QUERY_IMAGE.value:
        command.by_image(index, _path(_QUERY_IMAGE), captions, wishes)
    else:
        command.by_file(index, _path(_QUERIES), wishes)


def _serve() -> None:
    server.serve(_path(_INDEX), str(_HOST.value), int(_PORT.value))


def _export() -> None:
    config = _load_config() if flags.FLAGS["config"].value else None
    if config is not None and not _SPLIT.value:
        sys.exit(
            "error: --mode=export reads --config to find the data of --split, which is missing"
        )
    export.export(_path(_WORKDIR), _path(_OUT), split=_SPLIT.value, config=config)


def _compare(*runs: str) -> None:
    out = Path(str(_OUT.value or "runs/comparison"))
    comparison.compare([Path(run) for run in runs], out)


def _parity() -> None:
    config = _load_config() if flags.FLAGS["config"].value else rsicd.get_config("release")
    if _GOLDEN.value:
        passed = parity.against_golden_file(config, _path(_GOLDEN), str(_PRECISION.value))
    else:
        passed = parity.against_original(config, _path(_TORCH_CHECKOUT))
    if not passed:
        sys.exit(1)


def _golden() -> None:
    run = golden_writer.plan(
        int(_GOLDEN_SEED.value or 0),
        int(_GOLDEN_BATCH_SIZE.value or 0),
        _GOLDEN_CAPTION_LENGTHS.value,
        _GOLDEN_EPOCHS.value,
        _GOLDEN_MOMENTUM.value,
    )
    parity.write_golden_file(_path(_GOLDEN), _path(_TORCH_CHECKOUT), run)


def _path(flag: flags.FlagHolder) -> Path:
    return Path(str(flag.value))


def _refuse_config(error: Exception) -> NoReturn:
    # ml_collections tries several ways to load the file; the last line is what went wrong.
    sys.exit(f"error: the config cannot be loaded: {str(error).splitlines()[-1].strip()}")


def _load_config() -> ml_collections.ConfigDict:
    config = _CONFIG.value
    try:
        config.keys()  # of a file that failed to load, anything raises
    except OSError as error:
        _refuse_config(error)
    return config


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses like absl, but tells of an unknown config field in one sentence."""
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        cause = error.args[0] if error.args and isinstance(error, AttributeError) else error
        words = cause.args[0] if isinstance(cause, KeyError) else cause
        sys.exit(f"error: the config has no field {' '.join(str(words).split())}")
    except flags.Error as error:
        sys.exit(f"error: {str(error).splitlines()[-1].strip()}")
    except (OSError, SyntaxError) as error:
        _refuse_config(error)


_RUN = ("config", "workdir")
MODEL_MODES = ("train", "evaluate", "folds")  # may take several processes
COMPILING_MODES = (
    *MODEL_MODES,
    "export",
    "compare",
    "index",
    "search",
    "serve",
)  # keep what they compile
GOES_ON = {
    "train": ": the same command goes on from the last checkpoint",
    "index": ": the same command goes on with the images that are left",
}

MODES = {
    "train": Mode(_RUN, lambda: loop.train(_load_config(), _path(_WORKDIR))),
    "evaluate": Mode(("workdir",), _evaluate),
    "folds": Mode(_RUN, lambda: folds.train_folds(_load_config(), _path(_WORKDIR))),
    "prepare": Mode(("config",), lambda: data_report.prepare(_load_config())),
    "concepts": Mode(("config",), _concepts),
    "convert": Mode((*_RUN, ("from_torch", "to_torch")), _convert),
    "export": Mode(("workdir", "out"), _export),
    "compare": Mode((), _compare),
    "parity": Mode((("golden", "torch_checkout"),), _parity),
    "golden": Mode(("torch_checkout", "golden"), _golden),
    "benchmark": Mode(_RUN, _benchmark),
    "index": Mode(("images", "workdir", "index"), _index),
    "search": Mode(("index", ("query", "query_image", "queries")), _search),
    "serve": Mode(("index",), _serve),
}

_MODE = flags.DEFINE_enum("mode", None, list(MODES), "What to do.", required=True)


def run() -> None:
    """Runs the program with the arguments of the process."""
    app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
    run()
