import time

from tiny_index import fill

from input_pipeline.images import files
from input_pipeline.images.bands import BandChoice
from kamcl_jax.search.image_folder import find_images, read_images


def test_images_are_read_in_order_and_no_further_ahead_than_told(tmp_path, monkeypatch):
    fill(tmp_path, 20)
    read, read_bytes = [], files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    states = sorted(find_images(tmp_path, tmp_path / "index").images.values())
    images = read_images(tmp_path, states, 8, BandChoice(), ahead=5)
    names = [next(images).state.name for _ in range(3)]
    time.sleep(0.1)
    assert len(read) <= 5 + 3
    last = list(images)
    assert names + [image.state.name for image in last] == [state.name for state in states]
    assert last[-1].pixels.shape == (8, 8, 3)
    assert last[-1].original_size == (50, 40)
