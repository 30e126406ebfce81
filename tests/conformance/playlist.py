"""A reader of HLS playlists that knows nothing of the server under test: text → data, and a list of what was malformed."""
import dataclasses
import datetime
import re
import urllib.parse

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(,|$)')
DATE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,})(Z|[+-]\d\d:?\d\d)$")
ONCE = {"EXTM3U", "EXT-X-VERSION", "EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE", "EXT-X-PLAYLIST-TYPE", "EXT-X-PART-INF",
        "EXT-X-SERVER-CONTROL", "EXT-X-INDEPENDENT-SEGMENTS", "EXT-X-START", "EXT-X-SKIP", "EXT-X-ENDLIST", "EXT-X-I-FRAMES-ONLY"}
MEDIA_ONLY = {"EXTINF", "EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE", "EXT-X-PART", "EXT-X-PART-INF", "EXT-X-SERVER-CONTROL", "EXT-X-PRELOAD-HINT", "EXT-X-RENDITION-REPORT",
              "EXT-X-SKIP", "EXT-X-MAP", "EXT-X-PROGRAM-DATE-TIME", "EXT-X-ENDLIST", "EXT-X-PLAYLIST-TYPE", "EXT-X-DISCONTINUITY", "EXT-X-GAP"}
MULTIVARIANT_ONLY = {"EXT-X-STREAM-INF", "EXT-X-MEDIA", "EXT-X-I-FRAME-STREAM-INF", "EXT-X-SESSION-DATA", "EXT-X-SESSION-KEY", "EXT-X-CONTENT-STEERING"}
WITH_ATTRIBUTES = {"EXT-X-PART", "EXT-X-PART-INF", "EXT-X-SERVER-CONTROL", "EXT-X-PRELOAD-HINT", "EXT-X-RENDITION-REPORT", "EXT-X-SKIP", "EXT-X-MAP", "EXT-X-START",
                   "EXT-X-DATERANGE", "EXT-X-KEY", *MULTIVARIANT_ONLY, "EXT-X-DEFINE"}


@dataclasses.dataclass
class Part:
    uri: str
    duration: float
    independent: bool
    gap: bool


@dataclasses.dataclass
class Segment:
    """A parent segment; `uri` and `extinf` are None while it is still open."""
    msn: int
    dsn: int
    uri: str = None
    extinf: float = None
    parts: list = dataclasses.field(default_factory=list)
    date: float = None  # Unix seconds
    date_written: bool = False
    map_uri: str = None
    gap: bool = False
    discontinuity: bool = False
    bitrate: int = None  # kbit/s
    tags_after_part: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Playlist:
    url: str
    text: str
    tags: list  # (name, value) in order
    version: int = 1
    versions: int = 0
    target: int = None
    target_text: str = ""
    msn: int = 0
    dsn: int = 0
    dsn_written: bool = False
    type: str = None
    part_target: float = None
    control: dict = dataclasses.field(default_factory=dict)
    segments: list = dataclasses.field(default_factory=list)  # the open segment, if it has parts, is the last
    hints: list = dataclasses.field(default_factory=list)
    reports: list = dataclasses.field(default_factory=list)
    skip: dict = None
    start: dict = None
    endlist: bool = False
    independent_segments: bool = False
    malformed: list = dataclasses.field(default_factory=list)
    misplaced: list = dataclasses.field(default_factory=list)
    dates: list = dataclasses.field(default_factory=list)  # texts of EXT-X-PROGRAM-DATE-TIME that could not be read

    def absolute(self, uri):
        return urllib.parse.urljoin(self.url, uri)

    def complete(self):
        return [segment for segment in self.segments if segment.uri is not None]

    def open_segment(self):
        return self.segments[-1] if self.segments and self.segments[-1].uri is None else None

    def edge(self):
        """(msn, parts) of the open segment: what is listed now. A segment just closed gives (next, 0)."""
        last = self.open_segment()
        if last:
            return last.msn, len(last.parts)
        return (self.segments[-1].msn + 1 if self.segments else self.msn), 0

    def duration(self):
        return sum(segment.extinf for segment in self.complete()) + sum(part.duration for part in (self.open_segment() or Segment(0, 0)).parts)

    def part_hint(self):
        return next((hint for hint in self.hints if hint.get("TYPE") == "PART"), None)

    def part_keys(self):
        """(msn, index) → Part of all that are listed, oldest first."""
        return {(segment.msn, index): part for segment in self.segments for index, part in enumerate(segment.parts)}


def attributes(text, malformed):
    found, position = {}, 0
    while position < len(text):
        match = ATTRIBUTE.match(text, position)
        if not match:
            malformed.append(f"attribute list at {text[position:position + 60]!r}")
            break
        name, value = match[1], match[2]
        if name in found:
            malformed.append(f"attribute {name} twice")
        found[name] = value[1:-1] if value.startswith('"') else value
        position = match.end()
    return found


def date(text):
    """Unix seconds, or None when the date lacks milliseconds or zone or is none."""
    if not DATE.match(text):
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def number(text, kind, malformed, what):
    try:
        return kind(text)
    except (TypeError, ValueError):
        malformed.append(f"{what}: {text!r}")
        return kind(0)


def parse(url, text):
    lines = [line.rstrip("\r") for line in text.split("\n")]
    tags = []
    for line in lines:
        if line.startswith("#EXT"):
            name, _, value = line[1:].partition(":")
            tags.append((name, value))
    playlist = Playlist(url, text, tags)
    bad = playlist.malformed
    pending = None
    map_uri, offset, clock = None, 0, None

    def segment():
        nonlocal pending
        if pending is None:
            skipped = int(playlist.skip.get("SKIPPED-SEGMENTS", 0)) if playlist.skip else 0
            dsn = playlist.segments[-1].dsn if playlist.segments else playlist.dsn
            pending = Segment(playlist.msn + skipped + offset, dsn, map_uri=map_uri)
        return pending

    for line in lines:
        if not line:
            continue
        if not line.startswith("#"):
            this = segment()
            if this.extinf is None:
                bad.append(f"URI without EXTINF: {line!r}")
                this.extinf = 0.0
            this.uri = line
            if this.date is None:
                this.date = clock
            clock = None if this.date is None else this.date + this.extinf
            playlist.segments.append(this)
            pending, offset = None, offset + 1
            continue
        if not line.startswith("#EXT"):
            continue
        name, _, value = line[1:].partition(":")
        of = attributes(value, bad) if name in WITH_ATTRIBUTES else {}
        if name in ("EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE", "EXT-X-SKIP") and (playlist.segments or pending):
            playlist.misplaced.append(name)
        if name in ("EXT-X-DISCONTINUITY", "EXT-X-KEY", "EXT-X-MAP", "EXT-X-PROGRAM-DATE-TIME") and pending and pending.parts:
            pending.tags_after_part.append(name)
        if name == "EXT-X-VERSION":
            playlist.version, playlist.versions = number(value, int, bad, name), playlist.versions + 1
        elif name == "EXT-X-TARGETDURATION":
            playlist.target, playlist.target_text = number(value, int, bad, name), value
        elif name == "EXT-X-MEDIA-SEQUENCE":
            playlist.msn = number(value, int, bad, name)
        elif name == "EXT-X-DISCONTINUITY-SEQUENCE":
            playlist.dsn, playlist.dsn_written = number(value, int, bad, name), True
        elif name == "EXT-X-PLAYLIST-TYPE":
            playlist.type = value
        elif name == "EXT-X-PART-INF":
            playlist.part_target = number(of.get("PART-TARGET"), float, bad, "PART-TARGET")
        elif name == "EXT-X-SERVER-CONTROL":
            playlist.control = of
        elif name == "EXT-X-SKIP":
            playlist.skip = of
        elif name == "EXT-X-START":
            playlist.start = of
        elif name == "EXT-X-INDEPENDENT-SEGMENTS":
            playlist.independent_segments = True
        elif name == "EXT-X-ENDLIST":
            playlist.endlist = True
        elif name == "EXT-X-MAP":
            map_uri = of.get("URI")
            if map_uri is None:
                bad.append("EXT-X-MAP without URI")
            if pending:
                pending.map_uri = map_uri
        elif name == "EXT-X-DISCONTINUITY":
            this = segment()
            this.discontinuity, this.dsn = True, this.dsn + 1
        elif name == "EXT-X-GAP":
            segment().gap = True
        elif name == "EXT-X-BITRATE":
            segment().bitrate = number(value, int, bad, name)
        elif name == "EXT-X-PROGRAM-DATE-TIME":
            this = segment()
            this.date, this.date_written = date(value), True
            if this.date is None:
                playlist.dates.append(value)
        elif name == "EXTINF":
            segment().extinf = number(value.split(",")[0], float, bad, name)
        elif name == "EXT-X-PART":
            if "URI" not in of or "DURATION" not in of:
                bad.append(f"EXT-X-PART without URI or DURATION: {value[:80]}")
            part = Part(of.get("URI", ""), number(of.get("DURATION"), float, bad, "part DURATION"), of.get("INDEPENDENT") == "YES", of.get("GAP") == "YES")
            segment().parts.append(part)
        elif name == "EXT-X-PRELOAD-HINT":
            playlist.hints.append(of)
        elif name == "EXT-X-RENDITION-REPORT":
            playlist.reports.append(of)
    if pending and pending.parts:
        if pending.date is None:
            pending.date = clock
        playlist.segments.append(pending)
    return playlist


def variants(text, malformed):
    """Multivariant playlist → ([(attributes, URI)] of EXT-X-STREAM-INF, [attributes] of EXT-X-MEDIA)."""
    streams, media, awaiting = [], [], None
    for line in (line.strip() for line in text.split("\n")):
        if line.startswith("#EXT-X-STREAM-INF:"):
            awaiting = attributes(line.partition(":")[2], malformed)
        elif line.startswith("#EXT-X-MEDIA:"):
            media.append(attributes(line.partition(":")[2], malformed))
        elif line and not line.startswith("#"):
            if awaiting is None:
                malformed.append(f"URI without EXT-X-STREAM-INF: {line}")
            streams.append((awaiting or {}, line))
            awaiting = None
    return streams, media
