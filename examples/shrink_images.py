"""Copies a folder of images at a few pixels a side, to carry a data set where space is short.

python examples/shrink_images.py --images=rsicd/RSICD_images --out=small/RSICD_images --side=128

The copies keep their names, so that caption files fit them as they are, but all are lossy WebP,
which the program reads by content. RSICD's 10,921 images at 128 pixels take 27 MB.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from input_pipeline.images.files import IMAGE_SUFFIXES


def shrink(image: Path, out: Path, side: int, quality: int) -> int:
    """Writes a copy of `side` x `side` pixels into a folder; returns its size in bytes."""
    copy = out / image.name
    with Image.open(image) as opened:
        small = opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    small.save(copy, "WEBP", quality=quality)
    return copy.stat().st_size


def main(arguments: list[str] | None = None) -> None:
    """Shrinks all images of a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copies")
    parser.add_argument("--side", type=int, default=128, help="pixels a side")
    parser.add_argument("--quality", type=int, default=60, help="of WebP, up to 100")
    chosen = parser.parse_args(arguments)
    if not chosen.images.is_dir():
        parser.error(f"there is no folder {chosen.images}")
    files = [p for p in sorted(chosen.images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
    chosen.out.mkdir(parents=True, exist_ok=True)
    one = partial(shrink, out=chosen.out, side=chosen.side, quality=chosen.quality)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        total = sum(pool.map(one, files))
    print(f"{len(files)} images, {total / 1e6:.1f} MB: {chosen.out}")


if __name__ == "__main__":
    main()
