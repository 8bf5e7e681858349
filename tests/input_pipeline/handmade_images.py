"""Image files for tests, also such as PIL does not write."""

import io
import struct
import zlib

import numpy as np


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def colours(height=6, width=5):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def png(width, height, bits, colour_type, rows):
    """A PNG file made by hand: PIL does not write 16 bits a colour."""

    def chunk(kind, data):
        check_sum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check_sum

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def tiff(order, bits, photometric, *strips, width=4, compression=1, **more):
    """A TIFF file of one row, made by hand; `more` names further tags by `t` and their number."""
    mark, bands = {"<": b"II", ">": b"MM"}[order], len(bits)
    tags = {256: [width], 257: [1], 258: bits, 259: [compression], 262: [photometric]}
    tags |= {273: [0] * len(strips), 277: [bands], 278: [1], 279: [len(s) for s in strips]}
    tags |= {int(name[1:]): value for name, value in more.items()}
    long_tags, end = {273, 279}, 8 + 2 + 12 * len(tags) + 4
    for written in range(2):  # once for the length, once with the strips' places
        entries, outside = b"", b""
        for tag, values in sorted(tags.items()):
            code = "I" if tag in long_tags else "H"
            data = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(data) > 4:
                data, outside = struct.pack(f"{order}I", end + len(outside)), outside + data
            kind = 4 if tag in long_tags else 3
            entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
        if not written:
            places = np.cumsum([end + len(outside), *map(len, strips)])
            tags[273] = places[:-1].tolist()
    header = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    return header + entries + bytes(4) + outside + b"".join(strips)
