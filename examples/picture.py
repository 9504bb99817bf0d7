"""A picture in memory: pixels, lines and small letters, written as PNG by the standard library alone."""

from __future__ import annotations

import struct
import zlib

Colour = tuple[int, int, int]

# Letters of 5 by 7 dots: five columns each, the lowest bit on top.
_SHAPES = (
    "0=3e5149453e 1=00427f4000 2=4261514946 3=2141454b31 4=1814127f10 5=2745454539 6=3c4a494930 7=0171090503 "
    "8=3649494936 9=064949291e A=7e1111117e B=7f49494936 C=3e41414122 D=7f4141221c E=7f49494941 F=7f09090901 "
    "G=3e4149497a H=7f0808087f I=00417f4100 J=2040413f01 K=7f08142241 L=7f40404040 M=7f020c027f N=7f0408107f "
    "O=3e4141413e P=7f09090906 Q=3e4151215e R=7f09192946 S=4649494931 T=01017f0101 U=3f4040403f V=1f2040201f "
    "W=3f4038403f X=6314081463 Y=0708700807 Z=6151494543 .=0060600000 ,=0050300000 -=0808080808 /=2010080402"
)
_LETTERS = {shape[0]: bytes.fromhex(shape[2:]) for shape in _SHAPES.split()}


class Picture:
    """`width` by `height` pixels of red, green and blue, black at first."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.pixels = bytearray(width * height * 3)

    def paste(self, left: int, top: int, width: int, pixels: bytes) -> None:
        """Puts a block of pixels, `width` to a row, where its upper left corner shall be."""
        row = width * 3
        for number in range(len(pixels) // row):
            start = ((top + number) * self.width + left) * 3
            self.pixels[start : start + row] = pixels[number * row : (number + 1) * row]

    def fill(self, left: int, top: int, width: int, height: int, colour: Colour) -> None:
        """Fills a rectangle."""
        self.paste(left, top, width, bytes(colour) * (width * height))

    def outline(self, left: int, top: int, width: int, height: int, colour: Colour) -> None:
        """Draws a rectangle's edge, one pixel wide."""
        self.fill(left, top, width, 1, colour)
        self.fill(left, top + height - 1, width, 1, colour)
        self.fill(left, top, 1, height, colour)
        self.fill(left + width - 1, top, 1, height, colour)

    def write(self, left: int, top: int, text: str, colour: Colour, size: int = 1) -> int:
        """Writes capitals, digits and a few signs, `size` pixels to a dot; gives where the text ends."""
        for letter in text.upper():
            for column, dots in enumerate(_LETTERS.get(letter, bytes(5))):
                for row in range(7):
                    if dots >> row & 1:
                        self.fill(left + column * size, top + row * size, size, size, colour)
            left += 6 * size
        return left

    def png(self) -> bytes:
        """The picture as a PNG file."""
        row = self.width * 3
        rows = b"".join(b"\0" + self.pixels[start : start + row] for start in range(0, len(self.pixels), row))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )


def read_png(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels of a PNG file that `Picture.png` made. ValueError if it is damaged."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    place, found = 8, {}
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if struct.unpack(">I", data[place + 8 + length : place + 12 + length]) != (zlib.crc32(kind + body),):
            raise ValueError(f"the chunk {kind!r} is damaged")
        found[kind] = body
        place += 12 + length
    width, height, *kind_of_pixels = struct.unpack(">IIBBBBB", found[b"IHDR"])
    if kind_of_pixels != [8, 2, 0, 0, 0]:
        raise ValueError("not a PNG file of eight-bit colours")
    rows, stride = zlib.decompress(found[b"IDAT"]), width * 3 + 1
    if len(rows) != stride * height or any(rows[start] for start in range(0, len(rows), stride)):
        raise ValueError("the rows are not as they were written")
    return width, height, b"".join(rows[start + 1 : start + stride] for start in range(0, len(rows), stride))
