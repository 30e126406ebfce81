#!/usr/bin/env python3
"""Holds a running low-latency HLS stream against the rules of rules.py, from outside, with nothing but Python's standard library.

URL is a multivariant playlist, at an edge or an origin. The stream is watched for N seconds the way a player would, with blocking
reloads; every part, segment and init section is fetched and taken apart; and meanwhile the server is asked what a player would never
ask. The table names each rule, its level (MUST: the documents; SHOULD: expected; PLAYER: real players need it), what came of it and
what was seen. "not seen" means that the stream gave no occasion: a rule about the end of a broadcast needs one that ends, one about
removed segments needs more time than the playlist is long.
"""
import argparse
import json
import sys
import time
import urllib.parse

import judge_media
import judge_playlists
import judge_together
import playlist as hls
from metronome import Metronome
from observe import Observer
from probe import Prober, after_the_end, multivariant_headers
from rules import LEVELS, Report
from web import Client

EXAMPLES = """examples:
  check.py http://127.0.0.1:8080/app/demo/d/llhls.m3u8                  half a minute at an edge
  check.py https://127.0.0.1:8443/app/demo/index.m3u8 --insecure        with TLS: HTTP/2 and TLS 1.3 are judged too
  check.py URL --seconds 90                                             long enough for segments to leave a playlist of 60 s
  check.py URL --except MD-12,UP-03                                     an encoder whose key frames are known to be too far apart
  check.py URL --json | jq '.rules[] | select(.verdict == "FAIL")'

exit status: 0 no MUST failed, 1 a MUST failed (or an answer was missing), 2 there was nothing to judge"""

NOTHING_TO_JUDGE = 2
# How long the last answers of the observers are waited for: longer than a server may hold a request.
LAST_ANSWERS_SECONDS = 30


def main():
    options = read_options()
    client = Client(options.insecure)
    try:
        multivariant = client.get(options.url)
    except OSError as failure:
        nothing(f"{options.url}: {failure}")
    if multivariant.status != 200:
        nothing(f"{multivariant.status} for {options.url}")
    urls = rendition_urls(multivariant)
    if not urls:
        nothing(f"{options.url} names no media playlist")

    report = Report(exceptions=options.exceptions)
    metronome = Metronome()
    metronome.start()
    observers = [Observer(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1], url, options.insecure, metronome) for url in urls]
    watch(observers, multivariant, report, options)
    judge(observers, multivariant, report)

    if options.json:
        print(json.dumps(as_json(options.url, observers, report), indent=1))
    else:
        report.print()
        for observer in observers:
            print(f"{observer.name}: {len(observer.seen)} playlists, {len(observer.parts)} parts, {len(observer.segments)} segments, {len(observer.hinted)} asked for by hint")
            for fault in observer.faults[:5]:
                print(f"  trouble: {fault}")
    sys.exit(1 if report.failed("MUST") or any(observer.faults for observer in observers) else 0)


def read_options():
    options = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("url", metavar="URL")
    options.add_argument("--seconds", type=float, default=30, metavar="N", help="how long to watch (default: 30)")
    options.add_argument("--insecure", action="store_true", help="accept a self-signed certificate")
    options.add_argument("--json", action="store_true", help="print the verdicts as one JSON document instead of the table")
    options.add_argument("--except", dest="exceptions", default="", metavar="RULES", help="rules, with commas, that are known to fail here: told, but no failure")
    given = options.parse_args()
    given.exceptions = {rule for rule in given.exceptions.split(",") if rule}
    if unknown := given.exceptions - set(LEVELS):
        options.error(f"no such rules: {', '.join(sorted(unknown))}")
    return given


def nothing(why):
    print(why, file=sys.stderr)
    sys.exit(NOTHING_TO_JUDGE)


def rendition_urls(multivariant):
    """Absolute URLs of all media playlists, each once, variants first."""
    streams, media = hls.variants(multivariant.body.decode("utf-8", "replace"), [])
    uris = [uri for _, uri in streams] + [tag["URI"] for tag in media if "URI" in tag]
    return list(dict.fromkeys(urllib.parse.urljoin(multivariant.url, uri) for uri in uris))


def watch(observers, multivariant, report, options):
    """Observers run for the whole time; the probes go through the renditions one after another meanwhile."""
    began = time.monotonic()
    for observer in observers:
        observer.start()
    multivariant_headers(multivariant, report, options.insecure)
    for observer in observers:
        while observer.is_alive() and not observer.seen:
            time.sleep(0.05)
        Prober(observer, report, options.insecure).run()
    while time.monotonic() < began + options.seconds and any(observer.is_alive() for observer in observers):
        time.sleep(0.05)
    for observer in observers:
        observer.stop.set()
    for observer in observers:
        observer.join(timeout=LAST_ANSWERS_SECONDS)
        after_the_end(observer, report, options.insecure)


def judge(observers, multivariant, report):
    medias = []
    for observer in observers:
        first = observer.seen[0] if observer.seen else None
        report.check("MV-19", first is not None and first.answer.status == 200 and first.playlist.target is not None, f"{observer.url}: {observer.faults}")
        judge_playlists.judge(observer, report)
        medias.append(judge_media.judge(observer, report))
    judge_playlists.judge_reports(observers, report)
    judge_together.judge(multivariant, observers, medias, report)


def as_json(url, observers, report):
    return {"url": url, "rules": report.rows(), "trouble": {observer.name: observer.faults for observer in observers}}


if __name__ == "__main__":
    main()
