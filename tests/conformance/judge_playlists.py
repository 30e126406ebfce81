"""Judges the playlists one observer saw: each as a document (PL), their succession (UP), hints (PH) and blocked answers (BL-01, BL-09).

Before it: observe.py. Beside it: judge_media.py for the bytes, probe.py for what only a question of one's own can show.
"""
import re
import urllib.parse

from playlist import MULTIVARIANT_ONLY, ONCE

JITTER_SECONDS = 0.15
# On top of three target durations, for the answer's way back.
HELD_ALLOWANCE_SECONDS = 1.0


def judge(observer, report):
    seen = [one for one in observer.seen if one.playlist.tags]
    texts = set()
    for one in seen:
        if one.playlist.text not in texts:
            texts.add(one.playlist.text)
            document(one.playlist, report)
    for one in seen:
        http_of_playlist(one, report)
        blocked(one, report)
    for held, target, answer in observer.given_up:
        report.check("BL-08", answer.status == 503 and held <= 3 * target + HELD_ALLOWANCE_SECONDS and "retry-after" in answer.headers,
                     f"{answer.status} after {held:.1f} s, TARGETDURATION {target}, Retry-After {answer.headers.get('retry-after')}")
    succession(observer, seen, report)
    availability(observer, report)


def document(p, report):
    text, target = p.text, p.target or 0
    report.check("PL-01", text.startswith("#EXTM3U") and "\ufeff" not in text and not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\ufffd]", text), repr(text[:60]))
    names = [name for name, _ in p.tags]
    needed = 9 if p.skip else 6 if any(segment.map_uri for segment in p.segments) else 3
    report.check("PL-02", p.versions == 1 and p.version >= needed, f"version {p.version} written {p.versions} times, {needed} needed")
    if p.skip is None:
        report.check("PL-03", p.version <= max(needed, 9), f"version {p.version}, {needed} needed")
    report.check("PL-04", re.fullmatch(r"[1-9]\d*", p.target_text) and all(int(s.extinf + 0.5) <= target for s in p.complete()),
                 f"TARGETDURATION {p.target_text!r}, longest EXTINF {max((s.extinf for s in p.complete()), default=0)}")
    twice = [name for name in ONCE if names.count(name) > 1]
    report.check("PL-06", not twice and not MULTIVARIANT_ONLY & set(names), f"twice: {twice}, of a multivariant: {MULTIVARIANT_ONLY & set(names)}")
    report.check("PL-07", not p.malformed, p.malformed)
    report.check("PL-09", p.skip is not None or all(segment.map_uri for segment in p.segments), "segment or part before any EXT-X-MAP")
    report.check("PL-10", not p.misplaced, p.misplaced)
    report.check("PL-12", p.type in (None, "EVENT") or (p.type == "VOD" and p.endlist), f"PLAYLIST-TYPE {p.type}")
    control = {name: _number(p.control.get(name)) for name in ("PART-HOLD-BACK", "HOLD-BACK", "CAN-SKIP-UNTIL")}
    has_parts = any(segment.parts for segment in p.segments)
    if has_parts:
        report.check("PL-14", p.part_target is not None, "parts without EXT-X-PART-INF")
        report.check("PL-15", control["PART-HOLD-BACK"] is not None and control["PART-HOLD-BACK"] >= 2 * p.part_target - 1e-6, p.control)
        report.check("PL-16", (control["PART-HOLD-BACK"] or 0) >= 3 * p.part_target - 1e-6, f"{p.control}, PART-TARGET {p.part_target}")
    if control["HOLD-BACK"] is not None:
        report.check("PL-17", control["HOLD-BACK"] >= 3 * target - 1e-6, p.control)
    if control["CAN-SKIP-UNTIL"] is not None:
        report.check("PL-18", control["CAN-SKIP-UNTIL"] >= 6 * target - 1e-6, p.control)
    report.check("PL-19", "CAN-SKIP-DATERANGES" not in p.control or control["CAN-SKIP-UNTIL"] is not None, p.control)
    report.check("PL-20", p.endlist or (p.control.get("CAN-BLOCK-RELOAD") == "YES" and has_parts), p.control)
    for segment in p.segments:
        parts_of_segment(p, segment, report)
    if not p.endlist and has_parts:
        report.check("PL-26", p.part_hint() is not None, "no EXT-X-PRELOAD-HINT TYPE=PART")
    kinds = [hint.get("TYPE") for hint in p.hints]
    report.check("PL-27", len(kinds) == len(set(kinds)), kinds)
    report.check("PL-28", not (p.endlist and p.hints), "hint together with ENDLIST")
    dated = [segment for segment in p.segments if segment.date_written]
    report.check("PL-29", bool(dated or p.skip) and not p.dates, f"unreadable: {p.dates}" if p.dates else "no EXT-X-PROGRAM-DATE-TIME")
    for a, b in zip(p.complete(), p.segments[1:]):
        if a.date and b.date_written and b.date and not b.discontinuity:
            report.check("PL-30", abs(b.date - a.date - a.extinf) < 1, f"{b.date - a.date - a.extinf:+.3f} s at segment {b.msn}")
    if p.type is None and any(segment.discontinuity for segment in p.segments):
        report.check("PL-31", p.dsn_written, "EXT-X-DISCONTINUITY without EXT-X-DISCONTINUITY-SEQUENCE")
    if p.start:
        offset = _number(p.start.get("TIME-OFFSET")) or 0
        report.check("PL-33", offset < 0 and -offset >= 3 * target and -offset <= p.duration() or 0 <= offset <= p.duration() - 3 * target, p.start)
    if p.skip:
        report.check("PL-36", "_HLS_skip" in p.url, f"EXT-X-SKIP in {p.url}")
    else:
        report.check("PL-36", True)


def parts_of_segment(p, segment, report):
    report.check("PL-25", not segment.tags_after_part, f"{segment.tags_after_part} after a part of segment {segment.msn}")
    if not segment.parts:
        return
    for index, part in enumerate(segment.parts):
        report.check("PL-21", part.duration <= p.part_target + 1e-6, f"part {segment.msn}.{index}: {part.duration} > {p.part_target}")
        last = segment.uri is not None and index == len(segment.parts) - 1
        follows_gap = index + 1 < len(segment.parts) and segment.parts[index + 1].gap
        # The newest part of an open segment may turn out to be its last.
        newest = segment.uri is None and index == len(segment.parts) - 1
        if not (part.independent or part.gap or last or newest or follows_gap):
            report.check("PL-22", part.duration >= 0.85 * p.part_target - 1e-6, f"part {segment.msn}.{index}: {part.duration} of {p.part_target}")
        if segment.gap:
            report.check("PL-34", part.gap, f"part {segment.msn}.{index} of a gap")
    if segment.uri is not None:
        total = sum(part.duration for part in segment.parts)
        report.check("PL-23", abs(total - segment.extinf) <= 0.010, f"segment {segment.msn}: parts {total:.4f}, EXTINF {segment.extinf}")
        after = sum((s.extinf or sum(x.duration for x in s.parts)) for s in p.segments if s.msn > segment.msn)
        report.check("PL-24", after <= 3 * (p.target or 0) + (p.target or 0), f"parts of segment {segment.msn} still listed {after:.1f} s from the end")


def http_of_playlist(one, report):
    headers = one.answer.headers
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    report.check("HT-01", kind in ("application/vnd.apple.mpegurl", "audio/mpegurl"), headers.get("content-type"))
    report.check("HT-08", headers.get("access-control-allow-origin") is not None, f"no Access-Control-Allow-Origin for {one.answer.url}")
    report.check("HT-04", "content-encoding" not in headers, headers.get("content-encoding"))


def blocked(one, report):
    msn, part = one.directives.get("_HLS_msn"), one.directives.get("_HLS_part")
    if msn is None or one.playlist.endlist:
        return
    listed = one.playlist.edge()
    held = one.answer.done - one.answer.asked
    report.check("BL-08", held <= 3 * (one.playlist.target or 0) + HELD_ALLOWANCE_SECONDS, f"{one.answer.status} after {held:.1f} s")
    report.check("BL-01", one.answer.status == 200 and (listed[0] > msn or listed[0] == msn and listed[1] > part), f"asked for {msn}.{part}, answered up to {listed}")
    report.check("BL-09", one.playlist.skip is None and one.playlist.target is not None and bool(one.playlist.segments), "blocked answer is not a whole playlist")


def succession(observer, seen, report):
    identity, part_identity = {}, {}
    first_seen, segment_seen = {}, {}
    for before, one in zip([None, *seen], seen):
        p = one.playlist
        for segment in p.complete():
            known = identity.setdefault(segment.msn, (segment.uri, segment.extinf, segment.dsn))
            report.check("UP-01", known[:2] == (segment.uri, segment.extinf), f"segment {segment.msn} was {known[:2]}, is {(segment.uri, segment.extinf)}")
            report.check("UP-02", known[2] == segment.dsn, f"segment {segment.msn}: discontinuity sequence {known[2]}, then {segment.dsn}")
            segment_seen.setdefault(segment.msn, one.answer.done)
        keys = p.part_keys()
        for key, part in keys.items():
            known = part_identity.setdefault(key, part)
            report.check("UP-05", known == part, f"part {key} was {known}, is {part}")
            first_seen.setdefault(key, one.answer.done)
        if before:
            old = before.playlist
            appeared = [key for key in keys if key >= old.edge()]
            if appeared and old.part_hint():
                part = keys[min(appeared)]
                report.check("UP-06", part.uri == old.part_hint().get("URI"), f"hinted {old.part_hint()}, then came {part.uri}")
            report.check("UP-01", p.msn >= old.msn, f"MEDIA-SEQUENCE {old.msn}, then {p.msn}")
            report.check("PL-05", p.target == old.target, f"TARGETDURATION {old.target}, then {p.target}")
            report.check("UP-09", p.edge() >= old.edge(), f"{old.edge()}, then {p.edge()}")
            report.check("UP-10", (p.control, p.part_target, p.version) == (old.control, old.part_target, old.version), f"{old.control} {old.part_target} {old.version} → {p.control} {p.part_target} {p.version}")
            kept = [key for key in old.part_keys() if key in keys]
            dropped = [key for key in old.part_keys() if key not in keys]
            report.check("UP-05", not kept or not dropped or max(dropped) < min(kept), f"removed {dropped[:3]} while {kept[:1]} stays")
            if old.type == "EVENT":
                report.check("PL-12", p.msn == old.msn, "a segment left an EVENT playlist")
            if p.msn > old.msn:
                report.check("PL-13", sum(s.extinf for s in p.complete()) >= 3 * p.target - 0.01, f"window {sum(s.extinf for s in p.complete()):.1f} s, target {p.target}")
            if old.endlist:
                report.check("UP-11", p.text == old.text, "changed after ENDLIST")
    pace(observer, seen, first_seen, segment_seen, report)


def pace(observer, seen, first_seen, segment_seen, report):
    """UP-03 and UP-04: what was already listed in the first playlist says nothing about pace."""
    if not seen:
        return
    start, p = seen[0].answer.done, seen[-1].playlist
    times = sorted({at for at in first_seen.values() if at > start})
    for a, b in zip(times, times[1:]):
        ours = observer.metronome.lateness(a, b)
        report.check("UP-04", b - a <= (p.part_target or 0) * 1.05 + JITTER_SECONDS + ours, f"{b - a:.3f} s between parts, {ours:.3f} s of it this machine's, PART-TARGET {p.part_target}")
    times = sorted({at for at in segment_seen.values() if at > start})
    for a, b in zip(times, times[1:]):
        ours = observer.metronome.lateness(a, b)
        report.check("UP-03", b - a <= 1.5 * p.target + ours, f"{b - a:.2f} s between segments, {ours:.2f} s of it this machine's, TARGETDURATION {p.target}")


def availability(observer, report):
    for fetched in observer.parts.values():
        report.check("PH-05", fetched.answer.status == 200 and fetched.answer.done - fetched.answer.asked < 1, f"{fetched.answer.status} after {fetched.answer.done - fetched.answer.asked:.2f} s for {fetched.uri}")
    for fetched in observer.segments.values():
        report.check("PH-06", fetched.answer.status == 200 and fetched.answer.done - fetched.answer.asked < 2, f"{fetched.answer.status} after {fetched.answer.done - fetched.answer.asked:.2f} s for {fetched.uri}")
    listed = {fetched.uri: fetched for fetched in observer.parts.values()}
    for uri, fetched in observer.hinted.items():
        if uri not in listed:
            continue  # asked for shortly before the end
        answer = fetched.answer
        if report.check("PH-01", answer.status == 200, f"{answer.status} for hinted {uri}"):
            report.check("PH-02", answer.done - answer.first < 0.1, f"{answer.done - answer.first:.3f} s from first to last byte of hinted {uri}")
            report.check("PH-03", answer.body == listed[uri].answer.body, f"hinted {uri}: {len(answer.body)} bytes, later {len(listed[uri].answer.body)}")
    for (kind, *_), after, answer in observer.gone_later:
        report.check("UP-08" if kind == "part" else "UP-07", answer.status == 200, f"{answer.status} for a {kind} {after:.1f} s after its removal")


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def judge_reports(observers, report):
    """RR: each playlist's reports against where the other renditions' observers were at that moment."""
    urls = {observer.url.split("?")[0]: observer for observer in observers}
    moments = {observer: [(one.answer.done, one.playlist.edge(), one.playlist) for one in observer.seen] for observer in observers}
    for observer in observers:
        others = [url for url in urls if url != observer.url.split("?")[0]]
        for one in observer.seen:
            if one.playlist.endlist:
                continue
            found = [urllib.parse.urljoin(one.answer.url, given.get("URI", "")).split("?")[0] for given in one.playlist.reports]
            report.check("RR-01", sorted(found) == sorted(others), f"reports {found}, other renditions {others}")
            for given, url in zip(one.playlist.reports, found):
                report.check("RR-02", "://" not in given.get("URI", "://") and url in urls, given)
                if not report.check("RR-04", "LAST-MSN" in given and "LAST-PART" in given, given) or url not in urls:
                    continue
                then = [edge for at, edge, _ in moments[urls[url]] if at <= one.answer.asked]
                if then:
                    report.check("RR-03", _behind(moments[urls[url]], (int(given["LAST-MSN"]), int(given["LAST-PART"])), then[-1]) <= 2, f"{given} while {then[-1]} was the next position")


def _behind(moments, reported, edge):
    """How many parts `reported` (the last one there) lies behind the last part before `edge` (the next one)."""
    parts = sorted({key for _, _, p in moments for key in p.part_keys() if key < edge})
    return len([key for key in parts if key > reported])
