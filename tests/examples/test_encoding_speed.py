"""The example that times encoders beside open_clip's, with a stand-in for that."""

import numpy as np

from examples import encoding_speed


def test_the_table_compares_what_both_computed(monkeypatch, tiny_published, capsys):
    class StandIn:
        weights = tiny_published.tensors

        def __init__(self, name):
            assert name == tiny_published.preset

        def encode_images(self, pixels):
            assert pixels.shape == (3, 20, 20, 3)
            return np.zeros((3, 8), np.float32)

        def encode_texts(self, sentences):
            assert len(sentences) == 3
            return np.zeros((3, 8), np.float32)

    monkeypatch.setattr(encoding_speed, "OpenClip", StandIn)
    arguments = ["--preset", tiny_published.preset, "--batch_size", "3", "--seconds", "0.1"]
    encoding_speed.main([*arguments, "--vocabulary", str(tiny_published.path.parent)])
    _, _, _, *rows = capsys.readouterr().out.strip().splitlines()
    for row, what in zip(rows[1:], ("images", "sentences"), strict=True):
        name, ours, theirs, ratio, differ = (cell.strip() for cell in row.strip("|").split("|"))
        assert name == what
        assert float(ratio) < 1  # a stand-in has nothing to do
        assert float(ours) < float(theirs)
        assert 0.1 < float(differ) <= 1  # an entry of a unit vector, beside a zero
