"""A reader of fragmented MP4 that knows nothing of the server under test: bytes → init section and fragments, with what was wrong."""
import dataclasses
import struct

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"edts"}
MAX_BOXES = 10_000


class Malformed(Exception):
    """The bytes are no whole boxes."""


@dataclasses.dataclass
class Box:
    kind: bytes
    start: int  # of the header, in the file
    body: bytes
    children: list

    def all(self, kind):
        return [child for child in self.children if child.kind == kind]

    def one(self, kind):
        return next(iter(self.all(kind)), None)

    def path(self, *kinds):
        box = self
        for kind in kinds:
            box = box and box.one(kind)
        return box


@dataclasses.dataclass
class Track:
    id: int
    timescale: int
    handler: str
    codec: str = None  # RFC 6381
    width: int = 0
    height: int = 0
    channels: int = 0
    nal_length: int = 0  # bytes of a NAL unit's length prefix; 0 when samples are no NAL units
    durations_zero: bool = True
    samples_zero: bool = True
    default_duration: int = 0
    default_size: int = 0
    default_flags: int = 0


@dataclasses.dataclass
class Init:
    brands: list
    kinds: list
    tracks: dict
    has_mvex: bool


@dataclasses.dataclass
class Sample:
    duration: int
    size: int
    sync: bool
    composition: int
    idr: bool = None  # what the NAL units say; None when they were not read


@dataclasses.dataclass
class Fragment:
    sequence: int
    track: int
    base_time: int  # tfdt, None when missing
    default_base_is_moof: bool
    base_data_offset: bool
    samples: list
    covers_mdat: bool
    nal_fault: str = None

    def duration(self):
        return sum(sample.duration for sample in self.samples)


def boxes(data, offset=0, base=0):
    found = []
    while offset < len(data):
        if len(data) - offset < 8:
            raise Malformed(f"{len(data) - offset} loose bytes at {base + offset}")
        size, kind = struct.unpack_from(">I4s", data, offset)
        header = 8
        if size == 1 and len(data) - offset >= 16:
            size, header = struct.unpack_from(">Q", data, offset + 8)[0], 16
        if size < header or offset + size > len(data):
            raise Malformed(f"box {kind!r} at {base + offset} says {size} bytes, {len(data) - offset} are there")
        body = data[offset + header:offset + size]
        children = boxes(body, 0, base + offset + header) if kind in CONTAINERS else []
        found.append(Box(kind, base + offset, body, children))
        if len(found) > MAX_BOXES:
            raise Malformed("too many boxes")
        offset += size
    return found


def full(body):
    """(version, flags) of a full box."""
    return body[0], int.from_bytes(body[1:4], "big")


def init(data):
    try:
        return _init(data)
    except (struct.error, IndexError) as short:
        raise Malformed(f"init section cut short: {short}") from short


def _init(data):
    top = boxes(data)
    kinds = [box.kind.decode("latin1") for box in top]
    ftyp = next((box for box in top if box.kind == b"ftyp"), None)
    moov = next((box for box in top if box.kind == b"moov"), None)
    if moov is None:
        raise Malformed("init section without moov")
    brands = [] if ftyp is None else [ftyp.body[i:i + 4].decode("latin1") for i in (0, *range(8, len(ftyp.body), 4))]
    tracks = {}
    for trak in moov.all(b"trak"):
        track = _track(trak)
        tracks[track.id] = track
    mvex = moov.one(b"mvex")
    for trex in mvex.all(b"trex") if mvex else []:
        track_id, _, duration, size, flags = struct.unpack_from(">IIIII", trex.body, 4)
        if track_id in tracks:
            tracks[track_id].default_duration, tracks[track_id].default_size, tracks[track_id].default_flags = duration, size, flags
    mvhd = moov.one(b"mvhd")
    if mvhd and _duration(mvhd.body, 12, 20):
        for track in tracks.values():
            track.durations_zero = False
    return Init(brands, kinds, tracks, mvex is not None)


def _duration(body, timescale_v0, timescale_v1):
    if full(body)[0] == 1:
        return struct.unpack_from(">Q", body, timescale_v1 + 4)[0]
    return struct.unpack_from(">I", body, timescale_v0 + 4)[0]


def _track(trak):
    tkhd, mdhd = trak.one(b"tkhd").body, trak.path(b"mdia", b"mdhd").body
    version = full(tkhd)[0]
    track_id = struct.unpack_from(">I", tkhd, 20 if version else 12)[0]
    timescale = struct.unpack_from(">I", mdhd, 20 if full(mdhd)[0] else 12)[0]
    handler = trak.path(b"mdia", b"hdlr").body[8:12].decode("latin1")
    track = Track(track_id, timescale, handler)
    tkhd_duration = struct.unpack_from(">Q", tkhd, 28)[0] if version else struct.unpack_from(">I", tkhd, 20)[0]
    track.durations_zero = _duration(mdhd, 12, 20) == 0 and tkhd_duration == 0
    table = trak.path(b"mdia", b"minf", b"stbl")
    counts = {b"stts": 4, b"stsc": 4, b"stsz": 8, b"stco": 4}
    track.samples_zero = all(struct.unpack_from(">I", table.one(kind).body, at)[0] == 0 for kind, at in counts.items() if table.one(kind))
    _sample_entry(table.one(b"stsd").body, track)
    return track


def _sample_entry(stsd, track):
    entry = boxes(stsd, 8)[0]
    kind = entry.kind.decode("latin1")
    if track.handler == "vide":
        track.width, track.height = struct.unpack_from(">HH", entry.body, 24)
        inside = {box.kind: box.body for box in boxes(entry.body, 78)}
        if kind in ("avc1", "avc3") and b"avcC" in inside:
            config = inside[b"avcC"]
            track.codec = f"{kind}.{config[1]:02x}{config[2]:02x}{config[3]:02x}"
            track.nal_length = (config[4] & 3) + 1
        else:
            track.codec = kind
    elif track.handler == "soun":
        track.channels = struct.unpack_from(">H", entry.body, 16)[0]
        inside = {box.kind: box.body for box in boxes(entry.body, 28)}
        track.codec = f"mp4a.40.{_audio_object_type(inside[b'esds'])}" if b"esds" in inside else kind.lower()


def _audio_object_type(esds):
    """The MPEG-4 audio object type of the DecoderSpecificInfo (descriptor tag 5)."""
    position = 4
    while position < len(esds):
        tag, position = esds[position], position + 1
        length = 0
        while True:
            byte, position = esds[position], position + 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == 3:
            flags = esds[position + 2]
            position += 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
        elif tag == 4:
            position += 13
        elif tag == 5:
            kind = esds[position] >> 3
            return kind if kind != 31 else 32 + ((esds[position] & 7) << 3 | esds[position + 1] >> 5)
        else:
            position += length
    return 0


def fragments(data, tracks):
    """(kinds of the top-level boxes, fragments in order)."""
    try:
        return _fragments(data, tracks)
    except (struct.error, IndexError) as short:
        raise Malformed(f"fragment cut short: {short}") from short


def _fragments(data, tracks):
    top = boxes(data)
    found = []
    for index, box in enumerate(top):
        if box.kind != b"moof":
            continue
        mdat = top[index + 1] if index + 1 < len(top) and top[index + 1].kind == b"mdat" else None
        sequence = struct.unpack_from(">I", box.one(b"mfhd").body, 4)[0]
        of_moof = [_traf(data, box, traf, sequence, tracks) for traf in box.all(b"traf")]
        spans = sorted(span for _, of_traf in of_moof for span in of_traf)
        start = None if mdat is None else mdat.start + 8
        whole = mdat is not None
        for offset, size in spans:
            whole, start = whole and offset == start, offset + size
        whole = whole and start == mdat.start + 8 + len(mdat.body)
        for fragment, _ in of_moof:
            fragment.covers_mdat = whole
            found.append(fragment)
    return [box.kind.decode("latin1") for box in top], found


def _traf(data, moof, traf, sequence, tracks):
    tfhd = traf.one(b"tfhd").body
    flags = full(tfhd)[1]
    track_id = struct.unpack_from(">I", tfhd, 4)[0]
    track = tracks.get(track_id)
    duration, size, sample_flags = (track.default_duration, track.default_size, track.default_flags) if track else (0, 0, 0)
    at = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    if flags & 0x8:
        duration, at = struct.unpack_from(">I", tfhd, at)[0], at + 4
    if flags & 0x10:
        size, at = struct.unpack_from(">I", tfhd, at)[0], at + 4
    if flags & 0x20:
        sample_flags = struct.unpack_from(">I", tfhd, at)[0]
    tfdt = traf.one(b"tfdt")
    base_time = None if tfdt is None else int.from_bytes(tfdt.body[4:12] if full(tfdt.body)[0] else tfdt.body[4:8], "big")
    fragment = Fragment(sequence, track_id, base_time, bool(flags & 0x20000), bool(flags & 0x1), [], False)
    spans = []
    for trun in traf.all(b"trun"):
        offset, samples = _trun(trun.body, duration, size, sample_flags)
        start = moof.start + offset
        spans.append((start, sum(sample.size for sample in samples)))
        for sample in samples:
            if track and track.nal_length:
                fault = _read_nal_units(data[start:start + sample.size], track.nal_length, sample)
                fragment.nal_fault = fragment.nal_fault or fault
            start += sample.size
        fragment.samples += samples
    return fragment, spans


def _trun(body, duration, size, flags_default):
    version, flags = full(body)
    count, at = struct.unpack_from(">I", body, 4)[0], 8
    offset = 0
    if flags & 0x1:
        offset, at = struct.unpack_from(">i", body, at)[0], at + 4
    first_flags = None
    if flags & 0x4:
        first_flags, at = struct.unpack_from(">I", body, at)[0], at + 4
    samples = []
    for index in range(min(count, len(body))):
        its = [duration, size, flags_default if index or first_flags is None else first_flags, 0]
        for field, bit in enumerate((0x100, 0x200, 0x400, 0x800)):
            if flags & bit:
                its[field] = struct.unpack_from(">i" if field == 3 and version else ">I", body, at)[0]
                at += 4
        samples.append(Sample(its[0], its[1], not its[2] & 0x10000, its[3]))
    return offset, samples


def _read_nal_units(data, prefix, sample):
    """Notes whether the sample is an IDR picture; gives what is wrong with its length prefixes, or None."""
    position, sample.idr = 0, False
    while position < len(data):
        length = int.from_bytes(data[position:position + prefix], "big")
        position += prefix
        if length == 0 or position + length > len(data):
            return f"NAL unit of {length} bytes at {position} in a sample of {len(data)}"
        if data[position] & 0x1F == 5:
            sample.idr = True
        position += length
    return None
