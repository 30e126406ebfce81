"""OBS Studio without a screen: a profile in a folder of its own, streaming from its start, under Xvfb."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

# The wizard stays away, and so does the question whether to end a running stream.
GLOBAL = """[General]
FirstRun=true
Pre19Defaults=false
Pre21Defaults=false
Pre23Defaults=false
Pre24.1Defaults=false
LastVersion=486539266
ConfirmOnExit=false
InfoIncrement=99
[Basic]
Profile=weir
ProfileDir=weir
SceneCollection=weir
SceneCollectionFile=weir
[BasicWindow]
WarnBeforeStartingStream=false
WarnBeforeStoppingStream=false
[OBSWebSocket]
ServerEnabled=false
FirstLoad=false
"""

# x264 by the advanced output's settings file: a key frame each second.
BASIC = """[General]
Name=weir
[Output]
Mode=Advanced
Reconnect=false
[AdvOut]
Encoder=obs_x264
TrackIndex=1
[Video]
BaseCX=320
BaseCY=180
OutputCX=320
OutputCY=180
FPSType=0
FPSCommon=10
[Audio]
SampleRate=48000
ChannelSetup=Stereo
"""

# Seconds that OBS has to end by itself.
ASKED_FOR = 3

SCENES = {
    "current_program_scene": "weir",
    "current_scene": "weir",
    "name": "weir",
    "scene_order": [{"name": "weir"}],
    "sources": [{"id": "scene", "name": "weir", "settings": {"items": []}}],
}


def installed():
    return bool(shutil.which("obs") and shutil.which("Xvfb"))


def start_screen():
    """An Xvfb on a display that it chooses, and that display."""
    ours, theirs = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs],
    )
    os.close(theirs)
    with os.fdopen(ours) as display:
        return screen, f":{display.readline().strip()}"


class Obs:
    """A running OBS that pushes; ends like a process."""

    def __init__(self, server, key, user, password, output, environment):
        self.folder = tempfile.TemporaryDirectory(prefix="weir-obs-")
        home = pathlib.Path(self.folder.name)
        settings = {"server": server, "key": key, "use_auth": user is not None}
        if user is not None:
            settings |= {"username": user, "password": password}
        files = {
            "global.ini": GLOBAL,
            "basic/profiles/weir/basic.ini": BASIC,
            "basic/profiles/weir/service.json": json.dumps({"type": "rtmp_custom", "settings": settings}),
            "basic/profiles/weir/streamEncoder.json": json.dumps({"keyint_sec": 1, "preset": "ultrafast", "bitrate": 300}),
            "basic/scenes/weir.json": json.dumps(SCENES),
        }
        for name, text in files.items():
            path = home / "obs-studio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.screen, display = start_screen()
        environment = {
            **environment,
            "DISPLAY": display,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "QT_QPA_PLATFORM": "xcb",
        }
        self.process = subprocess.Popen(
            ["obs", "--multi", "--startstreaming", "--profile", "weir", "--collection", "weir"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )

    def poll(self):
        return self.process.poll()

    def terminate(self):
        self.process.terminate()

    def wait(self, seconds):
        """A dialog may keep OBS from ending: it is not asked for long."""
        try:
            self.process.wait(ASKED_FOR)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(seconds)
        self.screen.terminate()
        self.screen.wait(seconds)
        self.folder.cleanup()
