#!/usr/bin/env python3
"""Pushes what encoders push, at several part targets, and has check.py judge every stream at the edge and at the origin.

Each run starts one `weir up` on free ports with the short playlist of weir.yaml, pushes all chosen broadcasts at once, lets the
playlists fill, and judges them a few at a time. Broadcasts other than `demo` are encoded once into --clips with ffmpeg and then
pushed as they are, so that the encoder does not compete with what is measured.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CLIP_SECONDS = 120
READY_SECONDS = 20
LIVE_SECONDS = 30
# The playlist of weir.yaml is full after this, so that it slides and has something to skip while it is judged.
FILL_SECONDS = 16
# Streams judged at once, each at the edge and at the origin: more, and a small machine is late by itself.
JUDGED_AT_ONCE = 2

VIDEO = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -b:v 800k"
TONE = "-f lavfi -i sine=frequency=440:sample_rate={rate}"


def picture(rate, size="640x360"):
    return f"-f lavfi -i testsrc2=size={size}:rate={rate}"


@dataclasses.dataclass
class Broadcast:
    what: str
    arguments: str  # of ffmpeg, inputs and codecs
    exceptions: str = ""  # rules it must break, see check.py --except


BROADCASTS = {
    "demo": Broadcast("the built-in demo broadcast", ""),
    "bframes": Broadcast("720p30 with three B-frames in a row", f"{picture(30, '1280x720')} {TONE.format(rate=48000)} {VIDEO} -bf 3 -g 30 -c:a aac -ac 2"),
    "ntsc": Broadcast("29.97 frames a second", f"{picture('30000/1001')} {TONE.format(rate=48000)} {VIDEO} -tune zerolatency -g 30 -c:a aac -ac 2"),
    "film": Broadcast("24 frames a second", f"{picture(24)} {TONE.format(rate=48000)} {VIDEO} -tune zerolatency -g 24 -c:a aac -ac 2"),
    "audio": Broadcast("sound alone", f"{TONE.format(rate=48000)} -c:a aac -ac 2"),
    "video": Broadcast("a picture alone", f"{picture(30)} {VIDEO} -tune zerolatency -g 30"),
    "mono": Broadcast("AAC at 44.1 kHz, one channel", f"{picture(25)} {TONE.format(rate=44100)} {VIDEO} -tune zerolatency -g 25 -c:a aac -ac 1"),
    # No server can make an independent frame: segments are cut by force, some hold none, and nothing else may be claimed.
    "farkeys": Broadcast("key frames 8.3 s apart, as OBS does unless told otherwise",
                         f"{picture(30)} {TONE.format(rate=48000)} {VIDEO} -tune zerolatency -g 250 -sc_threshold 0 -c:a aac -ac 2", "MD-12,MV-16"),
}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                      epilog="broadcasts:\n" + "\n".join(f"  {name:<8} {one.what}" for name, one in BROADCASTS.items()))
    options.add_argument("--weir", required=True, metavar="PROGRAM")
    options.add_argument("--only", default=",".join(BROADCASTS), metavar="NAMES", help="broadcasts, with commas (default: all)")
    options.add_argument("--part-targets", default="100ms,200ms,333ms", metavar="LIST", help="one run each (default: 100ms,200ms,333ms)")
    options.add_argument("--seconds", type=float, default=20, metavar="N", help="how long each stream is judged (default: 20)")
    options.add_argument("--clips", default=str(pathlib.Path(tempfile.gettempdir()) / "weir-conformance-clips"), metavar="DIR", help="where encoded clips are kept")
    options.add_argument("--artifacts", metavar="DIR", help="where the verdicts go as JSON")
    options.add_argument("--config", default=str(HERE / "weir.yaml"), metavar="FILE", help="default: weir.yaml beside this file")
    options = options.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(BROADCASTS):
        sys.exit(f"no such broadcast: {', '.join(sorted(unknown))}")
    clips = {name: encode(name, pathlib.Path(options.clips)) for name in names if name != "demo"}
    failed = [line for part_target in options.part_targets.split(",") for line in run(part_target, names, clips, options)]
    print(f"\n{len(failed)} broken" if failed else "\nall rules held")
    sys.exit(1 if failed else 0)


def encode(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / f"{name}.flv"
    if not clip.exists():
        half = clip.with_suffix(".half.flv")
        subprocess.run(["ffmpeg", "-v", "error", "-y", *BROADCASTS[name].arguments.split(), "-t", str(CLIP_SECONDS), "-shortest", str(half)], check=True, stdin=subprocess.DEVNULL)
        half.rename(clip)
    return clip


def run(part_target, names, clips, options):
    """One Weir, all broadcasts; gives a line per broken stream."""
    print(f"\n== part target {part_target} ==", flush=True)
    processes = []
    try:
        demo = ["--demo"] if "demo" in names else []
        with tempfile.TemporaryFile() as log:
            weir = subprocess.Popen([options.weir, "up", "--ephemeral", "--json", "--part-target", part_target, "--config", options.config, *demo], stdout=subprocess.PIPE, stderr=log, text=True)
        processes.append(weir)
        ready = json.loads(weir.stdout.readline())
        for name, clip in clips.items():
            push = ["ffmpeg", "-v", "error", "-re", "-i", str(clip), "-c", "copy", "-f", "flv", f"{ready['origin']['rtmp']}/{name}"]
            processes.append(subprocess.Popen(push, stdin=subprocess.DEVNULL))
        for name in names:
            until_live(f"{ready['origin']['http']}/app/{name}/d/llhls.m3u8")
        time.sleep(FILL_SECONDS)
        with concurrent.futures.ThreadPoolExecutor(JUDGED_AT_ONCE) as pool:
            return [line for lines in pool.map(lambda name: judge(name, part_target, ready, options), names) for line in lines]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=READY_SECONDS)


def until_live(url):
    deadline = time.monotonic() + LIVE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as refusal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not live after {LIVE_SECONDS} s: {url}: {refusal}") from refusal
        time.sleep(0.1)


def judge(name, part_target, ready, options):
    """The edge (with TLS, for the rules about it) and the origin, at the same time."""
    places = {"edge": f"{ready['edge']['https']}/app/{name}/index.m3u8", "origin": f"{ready['origin']['http']}/app/{name}/d/llhls.m3u8"}
    command = [sys.executable, str(HERE / "check.py"), "--json", "--insecure", "--seconds", str(options.seconds), "--except", BROADCASTS[name].exceptions]
    checks = {place: subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) for place, url in places.items()}
    broken = []
    for place, check in checks.items():
        title = f"{name} at the {place}, {part_target}"
        text, _ = check.communicate()
        if not text:
            broken.append(f"{title}: nothing to judge")
            continue
        found = json.loads(text)
        if options.artifacts:
            folder = pathlib.Path(options.artifacts)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"conformance-{name}-{place}-{part_target}.json").write_text(text, encoding="utf-8")
        told = [row for row in found["rules"] if row["verdict"] in ("FAIL", "excepted")]
        counts = {verdict: sum(row["verdict"] == verdict for row in found["rules"]) for verdict in ("pass", "FAIL", "excepted", "not seen")}
        lines = [f"{title}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)]
        for row in told:
            lines.append(f"  {row['rule']} {row['level']} {row['verdict']} ({row['failed']} of {row['failed'] + row['passed']}): {row['holds']}")
            lines += [f"    seen: {one}" for one in row["evidence"]]
        faults = [f"  trouble: {fault}" for of in found["trouble"].values() for fault in of[:5]]
        print("\n".join(lines + faults), flush=True)
        if faults or any(row["level"] == "MUST" and row["verdict"] == "FAIL" for row in told):
            broken.append(title)
    return broken


if __name__ == "__main__":
    main()
