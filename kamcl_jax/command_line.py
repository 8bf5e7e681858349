"""The modes and flags of the command line. A mode is imported when it is asked for.

`python main.py`, `python -m kamcl_jax` and the installed command `kamcl` are the same.
"""

import difflib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from kamcl_jax import flag_parsing
from kamcl_jax.errors import ConfigError, KamclError, Stopped

if TYPE_CHECKING:
    from kamcl_jax.inference.model import TrainedModel


class Mode(NamedTuple):
    """What `--mode` can be.

    Attributes:
      about: What it does, in a few words.
      needs: The flags that it needs; of a group, just one.
      run: What it runs, with the arguments that are no flags.
      takes: The flags that it can have besides.
      compiles: Whether the programs that it compiles are kept for the next start.
      distributed: Whether several processes may run it together.
    """

    about: str
    needs: tuple[str | tuple[str, ...], ...]
    run: Callable[..., object]
    takes: tuple[str, ...] = ()
    compiles: bool = False
    distributed: bool = False


_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, events, report.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config file, such as configs/rsicd.py; --config.FIELD=VALUE changes it."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "The weights of a published CLIP or SigLIP, a file or a folder."
)
_PRESET = flags.DEFINE_string(
    "preset", None, "The published model that --weights are of, such as ViT-B-32-quickgelu."
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", None, "The tokeniser of --weights, if that is not what lies beside them."
)
_CLEANING = flags.DEFINE_enum(
    "cleaning",
    "canonicalize",
    ["canonicalize", "lower"],
    "How captions are cleaned for a SigLIP of --weights: as open_clip does, or as big_vision does.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This process is one of several, on one or more hosts."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where no cluster tells it."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Goes with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0; goes with --coordinator."
)
_FROM_TORCH = flags.DEFINE_string(
    "from_torch", None, "A checkpoint of the PyTorch release to make a run of."
)
_TO_TORCH = flags.DEFINE_string(
    "to_torch", None, "The file to write the run's best checkpoint to, as the release does."
)
_GOLDEN = flags.DEFINE_string(
    "golden",
    None,
    "A .npz file of what the PyTorch original computes: parity reads it, golden writes it.",
)
_TORCH_CHECKOUT = flags.DEFINE_string("torch_checkout", None, "A clone of the PyTorch original.")
_GOLDEN_SEED = flags.DEFINE_integer("golden_seed", 0, "The seed of weights and batches.")
_GOLDEN_BATCH_SIZE = flags.DEFINE_integer(
    "golden_batch_size", 8, "The pairs of a batch; they divide the original's queue of 8000."
)
_GOLDEN_CAPTION_LENGTHS = flags.DEFINE_list(
    "golden_caption_lengths", ["4", "14"], "The words of the shortest and the longest caption."
)
_GOLDEN_EPOCHS = flags.DEFINE_list(
    "golden_epochs",
    ["0", "10", "11", "12"],
    "The epoch of each training step; from 11 on the concept loss takes part.",
)
_GOLDEN_MOMENTUM = flags.DEFINE_list(
    "golden_momentum",
    ["release", "paper"],
    "The momentum updates to train with: the release's, the paper's (of all tensors) or both.",
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Where to write: export and compare take a folder (runs/comparison by default), search a .png "
    "picture (INDEX/found.png by default), or with --queries a .csv or .jsonl file.",
)
_SPLIT = flags.DEFINE_enum(
    "split", None, ["train", "validation", "test"], "The split whose embeddings are written, too."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float64", ["float64", "float32"], "What we compute in beside --golden."
)
_INDEX = flags.DEFINE_string("index", None, "The folder of an index.")
_IMAGES = flags.DEFINE_string("images", None, "A folder of images; folders below it count, too.")
_BANDS = flags.DEFINE_list(
    "bands", [], "The bands of TIFF files, from 1, for red, green and blue, as 4,3,2; or just one."
)
_STRETCH = flags.DEFINE_list(
    "stretch", [], "The percentiles of TIFF files' bands that become 0 and 255, as 2,98."
)
_QUERY = flags.DEFINE_string("query", None, "A sentence to find images for.")
_QUERY_IMAGE = flags.DEFINE_string("query_image", None, "A file to find similar images for.")
_QUERIES = flags.DEFINE_string("queries", None, "A file of sentences, one a line.")
_CAPTIONS = flags.DEFINE_string(
    "captions", None, "A file of captions, one a line, to find some for --query_image."
)
_K = flags.DEFINE_integer("k", 10, "How many images a query finds.", lower_bound=1)
_FAISS = flags.DEFINE_bool("faiss", False, "Searches approximately, through FAISS.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "The name or address to listen at.")
_PORT = flags.DEFINE_integer(
    "port", 8000, "The port to listen at; 0 takes a free one.", lower_bound=0, upper_bound=65535
)


def _open_model() -> "TrainedModel":
    """Opens what --workdir or --weights names."""
    import kamcl_jax

    if not _WEIGHTS.value:
        return kamcl_jax.load(_path(_WORKDIR))
    if not _PRESET.value:
        raise ConfigError(
            "--weights needs --preset, the published model that they are of: "
            "docs/published_models.md lists the names"
        )
    from kamcl_jax.models.clip import presets
    from kamcl_jax.parallel import hosts

    name = str(_PRESET.value)
    hosts.say(f"reading {_WEIGHTS.value} as a {presets.described(name)}")
    return kamcl_jax.load(_path(_WEIGHTS), name, str(_VOCABULARY.value or ""), str(_CLEANING.value))


def _train() -> None:
    from kamcl_jax.train import loop

    loop.train(_load_config(), _path(_WORKDIR))


def _evaluate() -> None:
    from kamcl_jax.evaluate import evaluate

    config = _config_if_given()
    if not _WEIGHTS.value:
        evaluate.evaluate(config, _path(_WORKDIR))
        return
    if config is None:
        raise ConfigError("--mode=evaluate with --weights needs --config, which says on what data")
    evaluate.evaluate_published(_open_model(), config, _path(_WORKDIR))


def _folds() -> None:
    from kamcl_jax.train import folds

    folds.train_folds(_load_config(), _path(_WORKDIR))


def _prepare() -> None:
    from kamcl_jax.evaluate import data_report

    data_report.prepare(_load_config())


def _concepts() -> None:
    from kamcl_jax.evaluate import concepts

    concepts.report(_load_config(), _path(_WORKDIR) / "concepts" if _WORKDIR.value else None)


def _export() -> None:
    config = _config_if_given()
    if config is not None and not _SPLIT.value:
        raise ConfigError(
            "--mode=export reads --config to find the data of --split, which is missing"
        )
    from kamcl_jax.export import command

    if _WEIGHTS.value:
        if _SPLIT.value:
            raise ConfigError("--split is for the --workdir of a run, not for --weights")
        command.export_published(_open_model(), _path(_OUT))
        return
    command.export(_path(_WORKDIR), _path(_OUT), split=_SPLIT.value, config=config)


def _compare(*runs: str) -> None:
    from kamcl_jax.evaluate.compare import command

    out = Path(str(_OUT.value or "runs/comparison"))
    command.compare([Path(run) for run in runs], out)


def _convert() -> None:
    from kamcl_jax.torch_release import convert

    if _FROM_TORCH.value:
        convert.from_torch(_load_config(), _path(_WORKDIR), _path(_FROM_TORCH))
    else:
        convert.to_torch(_load_config(), _path(_WORKDIR), _path(_TO_TORCH))


def _parity() -> None:
    from configs import rsicd
    from kamcl_jax.torch_release import command

    config = _config_if_given() or rsicd.get_config("release")
    if _GOLDEN.value:
        passed = command.against_golden_file(config, _path(_GOLDEN), str(_PRECISION.value))
    else:
        passed = command.against_original(config, _path(_TORCH_CHECKOUT))
    if not passed:
        sys.exit(1)


def _golden() -> None:
    from kamcl_jax.torch_release import command, golden_writer

    run = golden_writer.plan(
        int(_GOLDEN_SEED.value or 0),
        int(_GOLDEN_BATCH_SIZE.value or 0),
        _GOLDEN_CAPTION_LENGTHS.value,
        _GOLDEN_EPOCHS.value,
        _GOLDEN_MOMENTUM.value,
    )
    command.write_golden_file(_path(_GOLDEN), _path(_TORCH_CHECKOUT), run)


def _benchmark() -> None:
    from kamcl_jax.benchmark import command

    checkout = _path(_TORCH_CHECKOUT) if _TORCH_CHECKOUT.value else None
    command.run(_load_config(), _path(_WORKDIR), checkout)


def _index() -> None:
    from input_pipeline.images import bands
    from kamcl_jax.search import command

    choice = bands.parse_choice(_BANDS.value, _STRETCH.value)
    command.index_images(_open_model, _path(_IMAGES), _path(_INDEX), choice)


def _search() -> None:
    captions = _path(_CAPTIONS) if _CAPTIONS.value else None
    if captions and not _QUERY_IMAGE.value:
        raise ConfigError("--captions needs --query_image")
    from kamcl_jax.search import command

    index, out = _path(_INDEX), _path(_OUT) if _OUT.value else None
    options = command.SearchOptions(int(_K.value or 0), bool(_FAISS.value), out)
    if _QUERY.value:
        command.by_sentence(index, str(_QUERY.value), options)
    elif _QUERY_IMAGE.value:
        command.by_image(index, _path(_QUERY_IMAGE), captions, options)
    else:
        command.by_file(index, _path(_QUERIES), options)


def _serve() -> None:
    from kamcl_jax.serving import server

    server.serve(_path(_INDEX), str(_HOST.value), int(_PORT.value))


_RUN = ("config", "workdir")
_PRESET_OF_WEIGHTS = ("preset", "vocabulary", "cleaning")
_PROCESSES = ("distributed", "coordinator", "num_processes", "process_id")

MODES = {
    "train": Mode(
        "trains, or goes on with a training", _RUN, _train, _PROCESSES, True, distributed=True
    ),
    "evaluate": Mode(
        "scores a run's best checkpoint again",
        ("workdir",),
        _evaluate,
        ("config", "weights", *_PRESET_OF_WEIGHTS, *_PROCESSES),
        True,
        distributed=True,
    ),
    "folds": Mode(
        "trains on several splits and averages", _RUN, _folds, _PROCESSES, True, distributed=True
    ),
    "prepare": Mode("checks a data set and prepares it", ("config",), _prepare),
    "concepts": Mode(
        "shows what knowledge-aided learning finds", ("config",), _concepts, ("workdir",)
    ),
    "index": Mode(
        "embeds all images below a folder",
        ("images", ("workdir", "weights"), "index"),
        _index,
        ("bands", "stretch", *_PRESET_OF_WEIGHTS),
        True,
    ),
    "search": Mode(
        "finds images in an index",
        ("index", ("query", "query_image", "queries")),
        _search,
        ("captions", "k", "faiss", "out"),
        True,
    ),
    "serve": Mode("shows a search page", ("index",), _serve, ("host", "port"), True),
    "export": Mode(
        "writes a model for other programs",
        (("workdir", "weights"), "out"),
        _export,
        ("split", "config", *_PRESET_OF_WEIGHTS),
        True,
    ),
    "compare": Mode("compares two or more runs: RUN RUN ...", (), _compare, ("out",), True),
    "convert": Mode(
        "reads or writes the PyTorch release's checkpoints",
        (*_RUN, ("from_torch", "to_torch")),
        _convert,
    ),
    "parity": Mode(
        "compares our numbers with the PyTorch original's",
        (("golden", "torch_checkout"),),
        _parity,
        ("precision", "config"),
    ),
    "golden": Mode(
        "writes the PyTorch original's numbers to a file",
        ("torch_checkout", "golden"),
        _golden,
        (
            *("golden_seed", "golden_batch_size", "golden_caption_lengths"),
            *("golden_epochs", "golden_momentum"),
        ),
    ),
    "benchmark": Mode("times a step, evaluation and input", _RUN, _benchmark, ("torch_checkout",)),
}

_MODE = flags.DEFINE_string("mode", None, "What to do: one of the modes above.")

GOES_ON = {
    "train": ": the same command goes on from the last checkpoint",
    "index": ": the same command goes on with the images that are left",
}
"""What a user who interrupts a mode should know."""


def run() -> None:
    """Runs the program with the arguments of the process."""
    app.run(_main, flags_parser=_parse)


def _main(argv: list[str]) -> None:
    """Runs the mode; what a user can mend ends with one sentence and exit status 1."""
    name, mode, arguments = _chosen_mode(argv[1:])
    # What orbax logs as an error, also in threads of its own, it raises as well.
    logging.set_verbosity(logging.FATAL)
    _silence_threads_of("orbax.")
    try:
        _join_hosts(name, mode)
        if mode.compiles:
            from kamcl_jax.parallel import compilation

            compilation.keep_programs()
        mode.run(*arguments)
    except Stopped as stopped:
        _end(f"\n{stopped}", stopped.exit_status)
    except (KamclError, OSError) as error:
        _end(f"error: {error}", 1)
    except KeyboardInterrupt:
        _end(f"\ninterrupted{GOES_ON.get(name, '')}", 130)
    except SystemExit as ended:
        if _DISTRIBUTED.value and isinstance(ended.code, str):
            _end(ended.code, 1)
        raise
    except BaseException:
        if _DISTRIBUTED.value:
            traceback.print_exc()
            _end("", 1)
        raise


def _chosen_mode(arguments: list[str]) -> tuple[str, Mode, list[str]]:
    name = str(_MODE.value or "")
    if name not in MODES:
        wrong = f"there is no --mode={name}" if name else "--mode is missing"
        close = difflib.get_close_matches(name or " ".join(arguments[:1]), MODES, 1)
        hint = f"; did you mean --mode={close[0]}?" if close else ""
        sys.exit(f"error: {wrong}{hint}\n\n{_modes()}")
    mode = MODES[name]
    if arguments and name != "compare":
        sys.exit(
            f"error: unexpected arguments: {' '.join(arguments)} "
            "(a config field is set as --config.FIELD=VALUE)"
        )
    groups = [(need,) if isinstance(need, str) else need for need in mode.needs]
    # A command is often repeated with another mode, so that no mode minds what names a run.
    taken = {"mode", *_RUN, *mode.takes, *(flag for group in groups for flag in group)}
    for flag in _own_flags():
        if flag.present and flag.name not in taken:
            sys.exit(f"error: --mode={name} does not take --{flag.name}{_instead(name, flag.name)}")
    for choices in groups:
        given = [choice for choice in choices if flags.FLAGS[choice].value]
        if len(given) != 1:
            one_of = " or ".join(f"--{choice}" for choice in choices)
            just = ", just one of them" if given else ""
            sys.exit(f"error: --mode={name} needs {one_of}{just}")
    if not _WEIGHTS.value and any(flags.FLAGS[flag].present for flag in _PRESET_OF_WEIGHTS):
        sys.exit("error: --preset, --vocabulary and --cleaning are for --weights, which is missing")
    return name, mode, arguments


def _instead(mode: str, flag: str) -> str:
    trains = mode in ("train", "folds") and flag in ("weights", *_PRESET_OF_WEIGHTS)
    return ": fields of the config do that, --config.encoders.*" if trains else ""


def _silence_threads_of(package: str) -> None:
    print_error = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith(package):
            print_error(error)

    threading.excepthook = hook


def _join_hosts(name: str, mode: Mode) -> None:
    place = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value:
        if not mode.distributed:
            raise ConfigError(f"--mode={name} runs in one process: leave out --distributed")
        from kamcl_jax.parallel import hosts

        hosts.initialise(*place)
    elif any(value is not None for value in place):
        raise ConfigError("--coordinator, --num_processes and --process_id need --distributed")


def _end(sentence: str, status: int) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)
    if _DISTRIBUTED.value:
        # An ordinary exit waits for the other processes, which wait for this one.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _path(flag: flags.FlagHolder) -> Path:
    return Path(str(flag.value))


def _config_if_given() -> ml_collections.ConfigDict | None:
    return _load_config() if flags.FLAGS["config"].value else None


def _load_config() -> ml_collections.ConfigDict:
    config = _CONFIG.value
    try:
        config.keys()  # of a file that failed to load, anything raises
    except OSError as error:
        flag_parsing.refuse_config(error)
    return config


def _parse(argv: list[str]) -> list[str]:
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        print(_help())
        sys.exit(0)
    return flag_parsing.parse(argv)


def _own_flags() -> list[flags.Flag]:
    return flags.FLAGS.flags_by_module_dict()[__name__]


def _modes() -> str:
    lines = ["The modes, with the flags that they need [and can have]:", ""]
    for name, mode in MODES.items():
        needs = ("|".join([need] if isinstance(need, str) else need) for need in mode.needs)
        words = [f"--{need.replace('|', '|--')}" for need in needs]
        words += [f"[--{flag}]" for flag in mode.takes]
        lines += [f"  {name:<10}{mode.about}", f"            {' '.join(words)}"]
    return "\n".join(lines)


def _help() -> str:
    described = [
        f"  --{flag.name:<24}{flag.help}"
        for flag in sorted(_own_flags(), key=lambda flag: flag.name)
        if flag.name != "mode"
    ]
    return "\n".join(
        [
            "KAMCL in JAX: remote-sensing image-text retrieval.",
            "",
            "python main.py --mode=MODE [--FLAG=VALUE ...] [--config.FIELD=VALUE ...]",
            "",
            _modes(),
            "",
            "The flags:",
            "",
            *described,
            "",
            "docs/config.md has the fields of a config; README.md has examples.",
        ]
    )
