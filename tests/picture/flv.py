"""Just enough FLV to cut a loop: tags in, tags out (Adobe FLV and F4V specification 10.1, annex E)."""

import struct
from collections import namedtuple

AUDIO, VIDEO, SCRIPT = 8, 9, 18

Tag = namedtuple("Tag", "kind ms data")


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    at, tags = struct.unpack(">I", data[5:9])[0] + 4, []
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        ms = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        tags.append(Tag(data[at] & 31, ms, data[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return tags


def write_header(out):
    out.write(b"FLV\x01\x05" + struct.pack(">II", 9, 0))


def write_tag(out, kind, ms, data):
    stamp = (ms & 0xFFFFFF).to_bytes(3, "big") + bytes([ms >> 24 & 0xFF])
    out.write(bytes([kind]) + len(data).to_bytes(3, "big") + stamp + b"\0\0\0" + data)
    out.write(struct.pack(">I", 11 + len(data)))


def on_metadata(facts):
    """An AMF0 onMetaData: numbers, booleans and strings."""
    text = lambda s: struct.pack(">H", len(s)) + s.encode()
    body = b"\x02" + text("onMetaData") + b"\x08" + struct.pack(">I", len(facts))
    for name, value in facts.items():
        body += text(name)
        if isinstance(value, bool):
            body += b"\x01" + bytes([value])
        elif isinstance(value, str):
            body += b"\x02" + text(value)
        else:
            body += b"\x00" + struct.pack(">d", value)
    return body + b"\0\0\x09"
