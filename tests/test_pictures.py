"""The one reader of pictures, which data sets and `score` share."""

import csv
import io
import os
import struct
import zlib
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dataset_files import write_images
from PIL import Image

from commands.score import load_images
from commands.sentences import print_error
from datamodules.image_folder import ImageFolderDataModule
from datamodules.pictures import EXTENSIONS, FORMATS, decoded, of_its_size

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def of_folder(path, channels):
    """A picture as the data module reads it, among others."""
    folder = write_images(path.parent / "folder", {"class": 9})
    (folder / "class" / f"z{path.name}").write_bytes(path.read_bytes())
    data = ImageFolderDataModule(str(folder), side=8, channels=channels)
    data.setup("fit")
    (found,) = (d.images[d.index == 9][0] for d in data.datasets.values() if 9 in d.index)
    return found


def of_size(*image_shape):
    """What `load_images` asks a data set for that scales nothing."""
    return SimpleNamespace(
        has_partners=False, shapes=[image_shape], pictures=lambda content: [of_its_size(content, image_shape)]
    )


def of_score(path, channels):
    return load_images([str(path)], of_size(channels, 8, 8))[1][0]


each_reader = pytest.mark.parametrize("read", [of_folder, of_score])


@each_reader
@pytest.mark.parametrize(("mode", "name"), [
    ("L", "x.png"), ("RGB", "x.png"), ("RGB", "x.jpg"), ("RGB", "x.bmp"), ("RGB", "x.webp"), ("CMYK", "x.tif"),
    ("P", "x.gif"), ("RGBA", "x.png"), ("LA", "x.png"), ("1", "x.png"), ("RGB", "x.ppm"),
])  # fmt: skip
def test_opaque_pictures_of_8_bits_keep_their_bytes(tmp_path, read, mode, name):
    picture = Image.fromarray(np.stack([RAMP, RAMP.T, RAMP[::-1]], axis=2)).convert(mode)
    picture.save(tmp_path / name)
    for channels, other in ((1, "L"), (3, "RGB")):
        with Image.open(tmp_path / name) as file:
            wanted = np.array(file.convert(other)).reshape(8, 8, channels)
        assert np.array_equal(read(tmp_path / name, channels).permute(1, 2, 0), wanted)


def png(depth, colour, row):
    """An 8x8 PNG of so many bits a channel, all rows alike."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", 8, 8, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress((b"\0" + row) * 8)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF")
    return file.getvalue()


DEEP = {
    "grey.png": png(16, 0, bytes(16)), "colour.png": png(16, 2, bytes(48)), "alpha.png": png(16, 6, bytes(64)),
    "grey.tif": tiff(np.zeros((8, 8), np.uint16)), "float.tif": tiff(np.zeros((8, 8), np.float32)),
    "int.tif": tiff(np.zeros((8, 8), np.int32)), "colour.ppm": b"P6 8 8 65535\n" + bytes(384),
    "grey.pgm": b"P5 8 8 4095\n" + bytes(128), "plain.ppm": b"P3 8 8 300\n" + b"1 " * 192,
}  # fmt: skip


@each_reader
@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused(tmp_path, read, name):
    (tmp_path / name).write_bytes(DEEP[name])
    with pytest.raises(OSError, match=rf"{name} .*more than 8 bits a channel"):
        read(tmp_path / name, 3)


@each_reader
def test_a_picture_lies_as_its_camera_says(tmp_path, read):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read(tmp_path / "x.png", 1)[0], np.rot90(RAMP, -1))


@each_reader
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1"])
def test_what_is_transparent_is_white(tmp_path, read, mode):
    hidden = {"transparency": (0, 0, 0) if mode == "RGB" else 0} if mode in ("P", "RGB", "L", "1") else {}
    Image.new(mode, (8, 8)).save(tmp_path / "x.png", **hidden)
    assert torch.equal(read(tmp_path / "x.png", 3), torch.full((3, 8, 8), 255).byte())
    if mode == "RGBA":
        Image.new(mode, (8, 8), (0, 0, 0, 51)).save(tmp_path / "x.png")
        assert torch.equal(read(tmp_path / "x.png", 1), torch.full((1, 8, 8), 204).byte())


@each_reader
def test_no_other_format_is_opened_whatever_its_name(tmp_path, read, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
    (tmp_path / "x.png").write_bytes(eps)
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    with pytest.raises(OSError, match=r"x.png .*cannot identify"):
        read(tmp_path / "x.png", 3)
    assert {Image.registered_extensions()[extension] for extension in EXTENSIONS} == set(FORMATS)


@each_reader
def test_a_bomb_is_one_sentence(tmp_path, read):
    (tmp_path / "x.ppm").write_bytes(b"P5 20000 20000 255\n")
    with pytest.raises(OSError, match=r"x.ppm .*400000000 pixels.* exceeds limit"):
        read(tmp_path / "x.ppm", 3)
    large = io.BytesIO()
    Image.new("1", (10_000, 9_000)).save(large, "PNG")  # of which Pillow warns
    assert decoded(large.getvalue(), 1).size == (10_000, 9_000)


@each_reader
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path, read, monkeypatch):
    folder = write_images(tmp_path / "folder", {"class": 12}) / "class"
    os.mkfifo(folder / "zpipe.png")
    (folder / "zendless.png").symlink_to("/dev/zero")
    for name in ("zendless.png", "zpipe.png"):
        data = ImageFolderDataModule(str(folder.parent), side=8)
        with pytest.raises(OSError, match=rf"{name}.*is no regular file"):
            data.load() if read is of_folder else of_score(folder / name, 3)
        (folder / name).unlink()
    Image.fromarray(RAMP).save(tmp_path / "x.bmp")
    monkeypatch.setattr("datamodules.pictures.MOST_BYTES", 1000)
    with pytest.raises(OSError, match=r"x.bmp .*it has \d+ bytes, more than 1000"):
        read(tmp_path / "x.bmp", 3)


def test_a_file_name_that_is_no_text_is_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = import_module("commands.score")  # whose name is its function's, in `commands`
    mean = SimpleNamespace(
        device="cpu", representation=lambda image: image,
        log_prob_in_parts=lambda batch: batch["image"].float().mean(dim=(1, 2, 3)),
    )  # fmt: skip
    monkeypatch.setattr(module, "trained_inverter", lambda *_: mean)
    monkeypatch.setattr(module.Run, "of_trainer", lambda _: SimpleNamespace(folder=tmp_path))
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("L", (8, 8), 7).save(name)
    module.score(None, None, of_size(1, 8, 8), [name], [name])
    header = r"image,log p(x | h of caf\udce9.png), nats"
    assert list(csv.reader((tmp_path / "scores.csv").read_text().splitlines())) == [
        header.split(",", 1),
        [r"caf\udce9.png", "7.000"],
    ]
    assert r"caf\udce9.png" in capsys.readouterr().out
    (tmp_path / "runs").mkdir()
    try:
        load_images([name], of_size(1, 8, 9))
    except OSError as error:
        print_error(error)
    said = capsys.readouterr().err
    assert r"error: cannot read the image caf\udce9.png (ValueError: it is 8x8 pixels, and must be 9x8)" in said
    assert r"caf\udce9.png" in (tmp_path / "runs" / "last_error.txt").read_text()
