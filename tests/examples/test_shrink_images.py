import pytest
from PIL import Image

from examples import shrink_images


def test_copies_keep_their_names_and_are_small(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name, mode in (("a.jpg", "RGB"), ("b.png", "L")):
        Image.new(mode, (40, 30), 128).save(images / name)
    (images / "notes.txt").write_text("no image")
    out = tmp_path / "deep" / "copies"
    shrink_images.main([f"--images={images}", f"--out={out}", "--side=16"])
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.png"]
    for path in out.iterdir():
        with Image.open(path) as copy:
            assert (copy.size, copy.mode, copy.format) == ((16, 16), "RGB", "WEBP")
    assert "2 images" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        shrink_images.main([f"--images={tmp_path / 'none'}", f"--out={out}"])
