"""The comparisons with the PyTorch original as a person sees them, and the files that one reads."""

from pathlib import Path

import ml_collections

from kamcl_jax.config import checks
from kamcl_jax.torch_release import golden_check, golden_file, golden_writer, live
from kamcl_jax.torch_release.golden_check import FLOAT64_NOISE_LIMIT, SHARED_NOISE_MULTIPLE
from kamcl_jax.torch_release.golden_file import GoldenRun
from kamcl_jax.torch_release.tolerances import EVALUATION_FLOOR, FLOOR, NOISE_MULTIPLE, Row, table


def against_golden_file(config: ml_collections.ConfigDict, path: Path, precision: str) -> bool:
    """Computes a golden file in "float64" or "float32", prints the table, and says if it is met."""
    checks.check_config(config)
    golden = golden_file.read(path)
    described = _described(golden_file.run_of(golden))
    print(f"{path}: {described}, our arithmetic in {precision}; a few minutes on a CPU")
    rows = golden_check.compute_and_compare(golden, config, precision)
    print(table(rows))
    for row in rows:
        names = golden_check.name_failed_tensors(row, golden)
        if not row.passes and names:
            print(names)
    print(
        f"tolerance: {NOISE_MULTIPLE:g} x the original's own float32 noise + {EVALUATION_FLOOR:g} "
        f"(eval) or {FLOOR:g} (else) x magnitude; tolerance, used and error / noise are of the "
        "number that uses up most of its tolerance"
    )
    if precision == "float64":
        print(f"the noise adds at most {FLOAT64_NOISE_LIMIT:g} x magnitude")
    else:
        print(
            f"for tensors {SHARED_NOISE_MULTIPLE:g} x the largest relative noise in their encoder: "
            "where features nearly tie, rounding alone makes gradients jump"
        )
    return _print_verdict(rows)


def against_original(config: ml_collections.ConfigDict, checkout: Path) -> bool:
    """Runs the original beside our program, prints the table, and says if both agree."""
    checks.check_config(config)
    rows, stand_ins = live.run_both(config, checkout)
    _print_stand_ins(stand_ins)
    print(table(rows))
    print(
        f"both programs in float64; tolerance: {EVALUATION_FLOOR:g} (eval) or {FLOOR:g} (else) "
        "x the tensor's largest magnitude"
    )
    return _print_verdict(rows)


def write_golden_file(path: Path, checkout: Path, run: GoldenRun) -> None:
    """Lets the original, a clone at `checkout`, compute what a run asks for, and writes it down."""
    golden_writer.check_target(path, checkout)
    epochs = ", ".join(map(str, run.epochs))
    modes = " and of the ".join(run.modes)
    print(f"{path}: {_described(run)}, steps of epochs {epochs}, momentum of the {modes}")
    print("the original runs in float64 and in float32, a few minutes on a CPU", flush=True)
    _print_stand_ins(golden_writer.write(path, checkout, run))
    print(f"written; compare ours with it: python main.py --mode=parity --golden={path}")


def _described(run: GoldenRun) -> str:
    shortest, longest = run.caption_lengths
    return f"seed {run.seed}, batch {run.batch_size}, captions of {shortest} to {longest} words"


def _print_stand_ins(stand_ins: tuple[str, ...]) -> None:
    if stand_ins:
        print(f"cannot be imported, replaced by stand-ins of ours: {', '.join(stand_ins)}")


def _print_verdict(rows: list[Row]) -> bool:
    failed = [row.name for row in rows if not row.passes]
    if failed:
        print(f"FAIL: {len(failed)} of {len(rows)} quantities differ: {', '.join(failed)}")
    else:
        print(f"ok: all {len(rows)} quantities agree")
    return not failed
