"""How late the checker's own machine is: what is late because nobody was given a processor is no fault of the server's.

Beside observe.py, for the rules about pace in judge_playlists.py.
"""
import bisect
import threading
import time

BEAT_SECONDS = 0.02
# Shorter delays are ordinary scheduling, covered by the rule's own allowance.
NOTED_SECONDS = 0.03
MAX_NOTED = 100_000


class Metronome(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True, name="metronome")
        self._late = []  # (when the beat came, how late it was), in order

    def run(self):
        due = time.monotonic() + BEAT_SECONDS
        while len(self._late) < MAX_NOTED:
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self.note(now, now - due)
            due = now + BEAT_SECONDS

    def note(self, at, late):
        if late > NOTED_SECONDS:
            self._late.append((at, late))

    def lateness(self, begin, end):
        """Seconds in which this machine did not run what was due between two moments of time.monotonic()."""
        first = bisect.bisect_left(self._late, (begin, 0.0))
        return sum(late for at, late in self._late[first:] if at - late < end)
