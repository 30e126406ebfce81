#!/usr/bin/env python3
"""Test pictures that carry their own time, and beeps. Needs numpy and an ffmpeg.

  gen.py loop  --out clip.flv                     the demo clip: a loop without a joint, ready for our RTMP publisher
  gen.py clip  --out clip.mp4 --seconds 60        a file; its clock starts at 0 ms
  gen.py live  --url rtmp://127.0.0.1/app/key     encodes now; the clock is the wall clock (Unix ms mod 2**40)
  gen.py check FILE_OR_URL                        decodes, and verifies the clock picture by picture

Sound: a 40 ms beep of 1 kHz at the start of each second (2 kHz on every 10th, in a loop on its first), with a quiet
tone in between so that the encoder stays busy. In live mode the beep starts on the wall clock's second, so that
picture and sound can be compared too.

The demo clip in loadtest/demo/clip.flv was made by:  python3 tests/picture/gen.py loop --out loadtest/demo/clip.flv
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import blockcode
import flv
import scene

RATE = 48000
AAC_FRAME = 1024


class Pattern:
    """A busy picture that is cheap to paint: a gradient, a moving box, and noise that costs bits."""

    def __init__(self, width, height, tag=0):
        self.width, self.height, self.tag = width, height, tag
        self.band = blockcode.band_height(height)
        self.base = np.tile(np.linspace(40, 200, width, dtype=np.float32), (height, 1)).astype(np.uint8)
        u = np.tile(np.linspace(60, 190, width // 2, dtype=np.float32), (height // 2, 1)).astype(np.uint8)
        v = np.tile(np.linspace(190, 60, height // 2, dtype=np.float32)[:, None], (1, width // 2)).astype(np.uint8)
        grey = (self.band + 1) // 2 + 1
        u[:grey], v[:grey] = 128, 128  # no colour in the band
        self.chroma = u.tobytes() + v.tobytes()
        self.noise = np.random.default_rng(7).integers(16, 235, (height // 6, width // 4), dtype=np.uint8)
        self.luma = self.base.copy()

    def frame(self, ms, number):
        luma, band, height, width = self.luma, self.band, self.height, self.width
        luma[band:] = self.base[band:]
        side = height // 4
        left = (number * max(2, width // 160)) % (width - side)
        top = band + 4 + (number * 3) % max(1, height - side - band - 8)
        luma[top : top + side, left : left + side] = 225 - self.base[top : top + side, left : left + side] // 2
        rows, columns = self.noise.shape
        luma[height - rows :, :columns] = np.roll(self.noise, number * 5, axis=1)
        blockcode.paint(luma, ms, self.tag)
        return luma.tobytes() + self.chroma


def sound(start_ms, first, count, period=10):
    """`count` stereo samples (s16le) from sample `first`; `start_ms`: the time of sample 0."""
    index = np.arange(first, first + count, dtype=np.float64)
    second, within = np.divmod(start_ms + index * 1000.0 / RATE, 1000.0)
    pitch = np.where(np.mod(second, period) == 0, 2000.0, 1000.0)
    beep = np.where(within < 40, np.sin(2 * np.pi * pitch * within / 1000.0) * 0.6, 0)
    tone = 0.02 * np.sin(2 * np.pi * 220.0 * index / RATE)
    samples = ((beep + tone) * 32767).astype("<i2")
    return np.repeat(samples, 2).tobytes()


def video_codec(args, live):
    keyint = str(int(round(args.gop * args.fps)))
    x264 = f"keyint={keyint}:min-keyint={keyint}:scenecut=0:open-gop=0"
    x265 = f"{x264}:log-level=error:bframes={args.bf}"
    low_delay = ["-tune", "zerolatency"] if live or args.bf == 0 else []
    return {
        "h264": ["-c:v", "libx264", "-profile:v", "high", "-preset", args.preset, "-x264-params", x264,
                 *low_delay, "-bf", str(args.bf)],
        "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", x265],
        "av1": ["-c:v", "libsvtav1", "-preset", "12", "-g", keyint,
                *(["-svtav1-params", "pred-struct=1:lp=1"] if live else [])],
    }[args.vcodec]


def encoder(args, live):
    """Starts ffmpeg reading pictures and sound from two pipes: (process, picture pipe, sound pipe)."""
    sound_in, sound_out = os.pipe()
    picture_in, picture_out = os.pipe()
    audio_codec = {"aac": ["-c:a", "aac", "-b:a", "128k"], "opus": ["-c:a", "libopus", "-b:a", "96k"]}[args.acodec]
    if live:
        container = args.format or ("mpegts" if args.url.startswith(("srt:", "udp:")) else "flv")
        flags = ["-flvflags", "no_duration_filesize"] if container == "flv" else []
        output = ["-flush_packets", "1", "-f", container, *flags, *args.muxer_options.split(), args.url]
        output += args.extra_out.split()
    else:
        output = ["-movflags", "+faststart", args.out]
    quick = ["-thread_queue_size", "8", "-probesize", "32"]
    command = [
        args.ffmpeg, "-hide_banner", "-v", "warning", "-nostdin", "-y",
        *quick, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", args.size, "-framerate", str(args.fps),
        "-i", f"pipe:{picture_in}",
        *quick, "-f", "s16le", "-ar", str(RATE), "-ac", "2", "-i", f"pipe:{sound_in}",
        "-map", "0:v", *([] if args.no_sound else ["-map", "1:a"]), *video_codec(args, live), "-pix_fmt", "yuv420p",
        "-b:v", args.bitrate, "-maxrate", args.bitrate, "-bufsize", args.bitrate, *audio_codec, "-ar", str(args.rate),
        *output,
        # Somebody has to read it.
        *(["-map", "1:a", "-f", "null", "-"] if args.no_sound else []),
    ]  # fmt: skip
    process = subprocess.Popen(command, pass_fds=(sound_in, picture_in))
    os.close(sound_in)
    os.close(picture_in)
    return process, os.fdopen(picture_out, "wb", buffering=0), os.fdopen(sound_out, "wb", buffering=0)


def write_all(pipe, data):
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def size_of(args):
    return tuple(map(int, args.size.split("x")))


def painter(args):
    width, height = size_of(args)
    if args.picture == "scene":
        return scene.Scene(width, height, 16, args.tag)
    return Pattern(width, height, args.tag)


def clip(args):
    process, pictures, sounds = encoder(args, live=False)

    def feed_sound():
        step = RATE // 10
        try:
            for i in range(int(args.seconds * 10)):
                write_all(sounds, sound(0, i * step, step))
            sounds.close()
        except BrokenPipeError:
            pass

    feeder = threading.Thread(target=feed_sound)
    feeder.start()
    paint = painter(args)
    for i in range(int(args.seconds * args.fps)):
        write_all(pictures, paint.frame(int(round(i * 1000.0 / args.fps)), i))
    pictures.close()
    feeder.join()
    return process.wait()


def live(args):
    process, pictures, sounds = encoder(args, live=True)
    paint = painter(args)
    start = time.time() + 0.2
    stop = threading.Event()
    late = []

    def feed_sound():
        step, i = RATE // 50, 0
        try:
            while not stop.is_set() and i < args.seconds * 50:
                # A chunk is handed over when its last sample has "happened".
                wait = start + (i + 1) / 50 - time.time()
                if wait > 0:
                    time.sleep(wait)
                write_all(sounds, sound(start * 1000, i * step, step))
                i += 1
            sounds.close()
        except (BrokenPipeError, ValueError):
            pass

    threading.Thread(target=feed_sound, daemon=True).start()
    number, code = 0, None
    try:
        while number < args.seconds * args.fps and process.poll() is None:
            due = start + number / args.fps
            if due > time.time():
                time.sleep(due - time.time())
            now = time.time()
            late.append(now - due)
            write_all(pictures, paint.frame(int(now * 1000), number))
            number += 1
    except BrokenPipeError:
        pass
    stop.set()
    try:
        pictures.close()
    except OSError:
        pass
    try:
        code = process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    late.sort()
    at = lambda share: round(1000 * late[min(len(late) - 1, int(len(late) * share))], 1) if late else None
    report = {"frames": number, "rc": code, "late_ms_p50": at(0.5), "late_ms_p99": at(0.99), "late_ms_max": at(1)}
    print(json.dumps(report), file=sys.stderr)
    return code or 0


def loop(args):
    """The demo clip. Its length is a whole number of pictures, of AAC frames and of seconds (8 s at 30 fps, 48 kHz).

    The sound repeats with the loop, is encoded three times over and the middle loop's frames are kept: frame 0 then
    follows the last one as smoothly as any other, because the transform's overlap is with the same samples.
    """
    width, height = size_of(args)
    seconds = int(args.seconds)
    frames, audio_frames = seconds * int(args.fps), seconds * RATE // AAC_FRAME
    if seconds * RATE % AAC_FRAME or args.fps != int(args.fps):
        sys.exit("a loop wants a whole frame rate, and a length that is a multiple of 8 s")
    quiet = [args.ffmpeg, "-hide_banner", "-v", "error", "-nostdin", "-y"]
    with tempfile.TemporaryDirectory() as folder:
        picture_file, sound_file = os.path.join(folder, "v.flv"), os.path.join(folder, "a.flv")
        keyint = int(round(args.gop * args.fps))
        encode = subprocess.Popen(
            [*quiet, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", args.size, "-framerate", str(args.fps),
             "-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv",
             "-i", "pipe:0", "-c:v", "libx264", "-profile:v", "high", "-preset", "slow", "-bf", "0",
             "-x264-params", f"keyint={keyint}:min-keyint={keyint}:scenecut=0:open-gop=0:rc-lookahead={keyint}"
             ":colorprim=bt709:transfer=bt709:colormatrix=bt709",
             "-b:v", args.bitrate, "-maxrate", args.bitrate, "-bufsize", args.bitrate, "-an", picture_file],
            stdin=subprocess.PIPE,
        )  # fmt: skip
        paint = scene.Scene(width, height, seconds, args.tag)
        # A first second that is thrown away: it carries the encoder's banner, and the rate control settles in it.
        for i in range(-int(args.fps), frames):
            encode.stdin.write(paint.frame(int(round((i % frames) * 1000.0 / args.fps)), i))
        encode.stdin.close()
        if encode.wait():
            return 1
        once = sound(0, 0, seconds * RATE, period=seconds)
        subprocess.run(
            [*quiet, "-f", "s16le", "-ar", str(RATE), "-ac", "2", "-i", "pipe:0",
             "-c:a", "aac", "-b:a", "96k", "-flags:a", "+bitexact", "-vn", sound_file],
            input=once * 3, check=True,
        )  # fmt: skip
        video, audio = flv.read(picture_file), flv.read(sound_file)
    pictures = [t for t in video if t.kind == flv.VIDEO and t.data[1] == 1][int(args.fps) :]
    # The encoder's first frame is one frame of silence before sample 0.
    sounds = [t for t in audio if t.kind == flv.AUDIO and t.data[1] == 1][audio_frames + 1 :][:audio_frames]
    if len(pictures) != frames or len(sounds) != audio_frames:
        sys.exit(f"expected {frames} pictures and {audio_frames} AAC frames, got {len(pictures)} and {len(sounds)}")
    tags = [(i * 1000.0 / args.fps, flv.VIDEO, t.data) for i, t in enumerate(pictures)]
    tags += [(i * AAC_FRAME * 1000.0 / RATE, flv.AUDIO, t.data) for i, t in enumerate(sounds)]
    tags.sort(key=lambda tag: tag[0])
    heads = [next(t for t in video if t.kind == flv.VIDEO and t.data[1] == 0),
             next(t for t in audio if t.kind == flv.AUDIO and t.data[1] == 0)]  # fmt: skip
    with open(args.out, "wb") as out:
        flv.write_header(out)
        facts = {"width": width, "height": height, "framerate": float(args.fps), "videocodecid": 7.0,
                 "videodatarate": 8.0 * sum(len(t.data) for t in pictures) / seconds / 1000,
                 "audiocodecid": 10.0, "audiosamplerate": float(RATE), "stereo": True,
                 "audiodatarate": 8.0 * sum(len(t.data) for t in sounds) / seconds / 1000,
                 "encoder": "weir demo clip"}  # fmt: skip
        flv.write_tag(out, flv.SCRIPT, 0, flv.on_metadata(facts))
        for head in heads:
            flv.write_tag(out, head.kind, 0, head.data)
        for ms, kind, data in tags:
            flv.write_tag(out, kind, int(round(ms)), data)
    print(json.dumps({"seconds": seconds, "pictures": frames, "aac_frames": audio_frames,
                      "bytes": os.path.getsize(args.out)}), file=sys.stderr)  # fmt: skip
    return 0


def check(args):
    width, height = size_of(args)
    command = [args.ffmpeg, "-hide_banner", "-v", "error", "-nostdin"]
    if args.seconds_given:
        command += ["-t", str(args.seconds)]
    command += ["-i", args.url or args.out, "-map", "0:v:0", "-vf", f"scale={width}:{height}"]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-fps_mode", "passthrough", "pipe:1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    frames = unreadable = not_increasing = gaps = worst = 0
    first = last = None
    while len(luma := process.stdout.read(width * height)) == width * height:
        frames += 1
        read = blockcode.decode(np.frombuffer(luma, np.uint8).reshape(height, width))
        if read is None:
            unreadable += 1
            continue
        first = read[0] if first is None else first
        if last is not None:
            step = read[0] - last
            not_increasing += step <= 0
            if step > 1500.0 / args.fps:
                gaps, worst = gaps + 1, max(worst, step)
        last = read[0]
    process.wait()
    print(json.dumps({"frames": frames, "undecodable": unreadable, "not_increasing": not_increasing, "gaps": gaps,
                      "worst_gap_ms": worst, "first_ms": first, "last_ms": last}))  # fmt: skip
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loop", "clip", "live", "check"])
    parser.add_argument("target", nargs="?", help="for live and check: the same as --url")
    parser.add_argument("--out", default="clip.mp4")
    parser.add_argument("--url", default="")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, help="default: 16 for a loop, else 60; check reads to the end")
    parser.add_argument("--gop", type=float, default=1, help="seconds between key frames")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--bitrate", help="default: 1000k for a loop, else 2500k")
    parser.add_argument("--bf", type=int, help="B-frames; default 2 in a clip, 0 live and in a loop")
    parser.add_argument("--vcodec", default="h264", choices=["h264", "hevc", "av1"])
    parser.add_argument("--acodec", default="aac", choices=["aac", "opus"])
    parser.add_argument("--rate", type=int, default=RATE, help="of the encoded sound, in Hz")
    parser.add_argument("--no-sound", action="store_true")
    parser.add_argument("--picture", default="pattern", choices=["pattern", "scene"])
    parser.add_argument("--tag", type=int, default=0, help="0..255, carried beside the time")
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("--format", default="", help="container of live output; default by URL")
    parser.add_argument("--extra-out", default="", help="further ffmpeg output, as one string")
    parser.add_argument("--muxer-options", default="", help="ffmpeg muxer options, as one string")
    args = parser.parse_args()
    looped = args.what == "loop"
    args.seconds_given = args.seconds is not None
    args.seconds = args.seconds or (16 if looped else 60)
    args.bitrate = args.bitrate or ("1000k" if looped else "2500k")
    if args.bf is None:
        args.bf = 2 if args.what == "clip" else 0
    if args.fps == int(args.fps):
        args.fps = int(args.fps)
    args.url = args.url or args.target or ""
    return {"loop": loop, "clip": clip, "live": live, "check": check}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
