"""However a caption file is damaged: the whole data set is prepared, or nothing is."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from caption_damage import Variant
from caption_formats import FORMATS, Format, snapshot
from PIL import Image

from input_pipeline import datasets
from input_pipeline.errors import DataError

NAMES = ("sub/port_1.jpg", "port_2.jpg", "silo_1.jpg", "pond_1.jpg")


def chosen(case: Format) -> list[Variant]:
    """Returns what must be read like the undamaged files, and some of the rest."""
    everything = list(case.variants())
    same = [variant for variant in everything if variant.outcome == "same"][:3]
    return same + random.Random(3).sample(everything, 40)


def write_images(folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "green").save(file, "JPEG")
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(file.getvalue())


def fault(case: Format, variant: Variant, folder: Path) -> str | None:
    """Prepares a damaged folder and says what is wrong with the outcome."""
    before, prepared = snapshot(folder.parent), folder.parent.parent / "prepared"
    try:
        opened = datasets.open_prepared(case.data_set, folder, prepared)
    except DataError as error:
        found = f"refused: {error}" if variant.outcome == "same" else None
        if prepared.exists():
            found = f"refused, and left {sorted(prepared.rglob('*'))}"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    else:
        found = "accepted" if variant.outcome == "refused" else fault_of(opened)
    return "files changed" if snapshot(folder.parent) != before else found


def fault_of(opened: datasets.Prepared) -> str | None:
    """Says where the records differ from the texts."""
    texts = opened.texts()
    if not {"train", "test"} <= set(opened.sizes) or set(opened.splits) != set(texts):
        return f"the splits {opened.sizes}"
    for split, records in opened.splits.items():
        names = [records[i]["filename"].decode() for i in range(len(records))]
        captions = [[c.decode() for c in records[i]["captions"]] for i in range(len(records))]
        if (names, captions) != (texts[split].file_names, texts[split].captions):
            return f"other records than texts in {split}"
        if len(names) != opened.sizes[split] or not set(names) <= set(NAMES):
            return f"the names {names} in {split}"
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_data_set_is_prepared_whole_or_not_at_all(name, tmp_path):
    case, faults = FORMATS[name], []
    for count, variant in enumerate(chosen(case)):
        for inside in ("data", "outside"):
            case.write(tmp_path / str(count) / "source" / inside)
        folder = tmp_path / str(count) / "source" / "data"
        write_images(folder / "images")
        variant.damage(folder)
        found = fault(case, variant, folder)
        if found:
            faults.append(f"{variant.name}: {found}")
    assert not faults, "\n".join(faults)
