import numpy as np
import pytest

from examples import host_feed


def test_every_number_of_threads_is_measured_against_the_step(capsys):
    data = ["--images=9", "--side=6"]
    host_feed.main([*data, "--batch_size=8", "--step_ms=0.5", "--threads=1,3", "--seconds=0"])
    title, _, _, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert title.startswith("A step of 0.5 ms at batch 8 eats 16000 images/s; this host, with ")
    cells = [[float(cell) for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [1, 3]
    for _, rate, share, of_core, step in cells:
        assert share == pytest.approx(rate / 16000, abs=0.01)
        assert of_core > 0
        assert step >= 0.5
    for mistake in ("--threads=0", "--step_ms=0", "--batch_size=9999", "--batch_size=3"):
        with pytest.raises(SystemExit):
            host_feed.main([*data, mistake])


def test_all_threads_read_the_same_batches(tmp_path):
    host_feed.write_noise(tmp_path / "images.npy", images=9, side=6)
    first, second = (
        host_feed.noise_examples(tmp_path / "images.npy", threads).images for threads in (1, 3)
    )
    assert first.shape == (9, 6, 6, 3)
    assert len(np.unique(np.asarray(first))) > 200
    np.testing.assert_array_equal(first, second)
