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


# With fewer processors idle than this, everything on this machine waits its turn: encoder, server and checker alike.
ENOUGH_IDLE_SHARE = 0.15
# Rules that speak of when something comes, not of what comes.
RULES_OF_PACE = ("UP-03", "UP-04", "MV-14", "MD-22")


class Metronome(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True, name="metronome")
        self._late = []  # (when the beat came, how late it was), in order
        self._began = processor_times()

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

    def too_busy(self):
        """Why pace can't be judged here, or None when it can (or when this system does not say)."""
        share = idle_share(self._began, processor_times())
        if share is None or share >= ENOUGH_IDLE_SHARE:
            return None
        return f"pace was not judged: this machine's processors were idle {100 * share:.0f} % of the time, {100 * ENOUGH_IDLE_SHARE:.0f} % are needed"


def processor_times():
    """(idle, all) ticks of all processors since the start of the system, or None where /proc/stat is not."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return (ticks[3] + ticks[4], sum(ticks)) if len(ticks) == 8 else None


def idle_share(before, after):
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
