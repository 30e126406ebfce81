"""Watches one rendition for a while the way a low-latency player would, and remembers everything for the judges.

Before it: check.py starts one observer per rendition. After it: judge_playlists.py, judge_media.py read the record.
"""
import collections
import threading
import time

import boxes
import playlist as hls
from web import Client, with_query

# One playlist as it was answered: `directives` that were asked with, `reload` when it was a blocking one.
Seen = collections.namedtuple("Seen", "playlist answer directives")
# One media object: `hinted` when it was asked for before it was listed.
Fetched = collections.namedtuple("Fetched", "key uri answer hinted")

MAX_PLAYLISTS = 20_000
# Every so many parts one is asked for through its preload hint before it exists.
HINT_EVERY = 5


class Observer(threading.Thread):
    """Follows `url` with blocking reloads until `stop` is set, fetching each part and segment the moment it is listed."""

    def __init__(self, name, url, insecure, metronome):
        super().__init__(daemon=True, name=name)
        self.url = url
        self.metronome = metronome
        self.insecure = insecure
        self.client = Client(insecure)
        self.stop = threading.Event()
        self.seen = []  # Seen, in the order of the answers
        self.parts = {}  # (msn, index) → Fetched
        self.hinted = {}  # uri → Fetched, through the preload hint
        self.segments = {}  # msn → Fetched
        self.inits = {}  # uri → Fetched
        self.given_up = []  # (seconds held, target duration, answer) of blocking requests that were not answered 200
        self.faults = []  # exceptions and unexpected statuses, as text
        self.removed = {}  # ("part", msn, index) or ("segment", msn) → (absolute uri, monotonic time it was gone)
        self.gone_later = []  # (what, seconds after removal, answer)

    def run(self):
        try:
            self._follow()
        except Exception as failure:  # the record so far is still judged, the failure is reported
            self.faults.append(f"{type(failure).__name__}: {failure}")

    def newest(self):
        return self.seen[-1].playlist if self.seen else None

    def _follow(self):
        current = self._load({})
        while current and not self.stop.is_set() and not current.endlist and len(self.seen) < MAX_PLAYLISTS:
            self._fetch_listed(current)
            self._fetch_removed()
            self._ask_hint(current)
            msn, part = current.edge()
            if current.part_target is None:
                time.sleep((current.target or 2) / 2)
                current = self._load({})
            else:
                current = self._load({"_HLS_msn": msn, "_HLS_part": part})

    def _load(self, directives):
        answer = self.client.get(with_query(self.url, **directives))
        if answer.status != 200:
            if directives and self.newest():
                self.given_up.append((answer.done - answer.asked, self.newest().target or 4, answer))
            if answer.status != 503 or not directives:
                self.faults.append(f"{answer.status} for {answer.url}")
            time.sleep(0.5)
            answer = self.client.get(self.url)
            directives = {}
        read = hls.parse(answer.url, answer.body.decode("utf-8", "replace"))
        before = self.newest()
        self.seen.append(Seen(read, answer, directives))
        if before:
            self._note_removed(before, read, answer.done)
        return read

    def _note_removed(self, before, now, at):
        keys = now.part_keys()
        for (msn, index), part in before.part_keys().items():
            if (msn, index) not in keys:
                self.removed.setdefault(("part", msn, index), (before.absolute(part.uri), at))
        first = now.complete()[0].msn if now.complete() else now.msn
        for segment in before.complete():
            if segment.msn < first:
                self.removed.setdefault(("segment", segment.msn), (before.absolute(segment.uri), at))

    def _fetch_listed(self, current):
        fresh = len(self.seen) == 1
        for segment in current.segments[-3:] if fresh else current.segments:
            if segment.map_uri and segment.map_uri not in self.inits:
                self.inits[segment.map_uri] = self._get(("init", segment.map_uri), current.absolute(segment.map_uri))
            for index, part in enumerate(segment.parts):
                if (segment.msn, index) not in self.parts and (fresh or segment.msn >= self._first_msn()):
                    self.parts[segment.msn, index] = self._get((segment.msn, index), current.absolute(part.uri))
            if segment.uri and segment.msn not in self.segments and segment.msn >= self._first_msn():
                self.segments[segment.msn] = self._get(segment.msn, current.absolute(segment.uri))

    def _first_msn(self):
        """Only what appeared while we looked is fetched: the segments open or just closed at the start, and all later ones."""
        return self.seen[0].playlist.segments[-1].msn - 2 if self.seen[0].playlist.segments else 0

    def _fetch_removed(self):
        """Asks once for each removed object shortly before it may disappear: a part after three Target Durations, a segment after its own length and more."""
        target = self.newest().target or 4
        for what, (uri, at) in list(self.removed.items()):
            after = time.monotonic() - at
            if after >= 2.5 * target:
                del self.removed[what]
                if after <= 2.9 * target:
                    self.gone_later.append((what, after, self.client.get(uri)))

    def _ask_hint(self, current):
        hint = current.part_hint()
        if not hint or "URI" not in hint or len(self.seen) % HINT_EVERY:
            return
        uri = current.absolute(hint["URI"])
        threading.Thread(target=self._hinted, args=(uri,), daemon=True).start()

    def _hinted(self, uri):
        try:
            self.hinted[uri] = Fetched(None, uri, Client(self.insecure).get(uri), True)
        except Exception as failure:
            self.faults.append(f"hinted {uri}: {failure}")

    def _get(self, key, uri):
        return Fetched(key, uri, self.client.get(uri), False)

    def init(self):
        """The parsed init section, or None with the fault noted."""
        for fetched in self.inits.values():
            try:
                return boxes.init(fetched.answer.body)
            except boxes.Malformed as fault:
                self.faults.append(f"init section: {fault}")
        return None
