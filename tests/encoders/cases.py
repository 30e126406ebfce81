"""What every encoder is asked to do, and what has to come of it."""

from dataclasses import dataclass

PICTURE = "testsrc2=size=160x90:rate=10"


@dataclass(frozen=True)
class Case:
    """One push. `wanted`: "live", or the reason of the refusal."""

    encoder: str
    what: str
    key: str
    wanted: str
    command: tuple
    # What the encoder's own output has to show its user.
    shown: str = ""


def ffmpeg(program, url, *options):
    """A small picture and a tone, in real time, for half a minute."""
    return (
        program, "-hide_banner", "-loglevel", "warning", "-re",
        "-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", "sine=sample_rate=44100",
        "-t", "30", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10",
        "-c:a", "aac", "-b:a", "32k", *options, "-f", "flv", url,
    )  # fmt: skip


def gstreamer(location, *properties):
    picture = "videotestsrc is-live=true num-buffers=300 ! video/x-raw,width=160,height=90,framerate=10/1"
    encode = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse ! mux."
    sound = "audiotestsrc is-live=true ! avenc_aac ! aacparse ! mux."
    sink = f"flvmux name=mux streamable=true ! rtmp2sink location={location} {' '.join(properties)}"
    return ("gst-launch-1.0", "-q", *f"{sink} {picture} ! {encode} {sound}".split())


def for_ffmpeg(name, program, port):
    """Five ways in over every kind of port, and what must not get in."""

    def case(what, key, wanted, url, *options, shown=""):
        return Case(name, what, key, wanted, ffmpeg(program, url, *options), shown)

    host, shared, secure = "127.0.0.1", port["rtmp"], port["rtmps"]
    split = lambda app: ("-rtmp_app", app, "-rtmp_playpath", "show")  # noqa: E731
    denied = "not authorized"
    return [
        case("user:pass@, shared port", "show", "live", f"rtmp://anna:sesame-1@{host}:{shared}/app/show"),
        case("user:pass@ of the backup", "show", "live", f"rtmp://anna:sesame-2@{host}:{shared}/app/show"),
        case("user:pass@, own port", "show", "live", f"rtmp://anna:sesame-1@{host}:{port['show']}/app/show"),
        case("wrong password", "show", "wrong_credentials", f"rtmp://anna:wrong@{host}:{shared}/app/show"),
        case("unknown user", "show", "wrong_credentials", f"rtmp://nobody:x@{host}:{shared}/app/show"),
        case("another user's stream", "other", "wrong_credentials",
             f"rtmp://anna:sesame-1@{host}:{shared}/app/other", shown=denied),
        case("another stream's port", "show", "wrong_port",
             f"rtmp://anna:sesame-1@{host}:{port['other']}/app/show", shown="not pushed to this port"),
        case("app?user=&pass=", "show", "live", f"rtmp://{host}:{shared}", *split("app?user=anna&pass=sesame-1")),
        case("key?user=&pass=, quiet app", "show", "live", f"rtmp://{host}:{shared}/key/show?user=anna&pass=sesame-1"),
        case("key?user=&pass= wrong", "show", "wrong_credentials",
             f"rtmp://{host}:{shared}/key/show?user=anna&pass=wrong", shown=denied),
        case("app?t=", "show", "live", f"rtmp://{host}:{shared}", *split("app?t=tok-1")),
        case("app/?t=", "show", "live", f"rtmp://{host}:{shared}", *split("app/?t=tok-1")),
        case("key?t=, quiet app", "show", "live", f"rtmp://{host}:{shared}/key/show?t=tok-1"),
        case("old token", "show", "wrong_credentials", f"rtmp://{host}:{shared}", *split("app?t=tok-0"), shown=denied),
        case("no credentials, quiet app", "show", "no_credentials", f"rtmp://{host}:{shared}/key/show", shown=denied),
        case("key only, own port", "open", "live", f"rtmp://{host}:{port['open']}/app/open"),
        case("key only, quiet app", "open", "live", f"rtmp://{host}:{shared}/key/open"),
        case("unknown key", "nosuch", "unknown_stream", f"rtmp://{host}:{shared}/key/nosuch", shown=denied),
        case("rtmps, user:pass@, shared port", "show", "live", f"rtmps://anna:sesame-1@{host}:{secure}/app/show"),
        case("rtmps, key only, own port", "open", "live", f"rtmps://{host}:{port['open_tls']}/app/open"),
        case("rtmps, wrong password", "show", "wrong_credentials", f"rtmps://anna:wrong@{host}:{secure}/app/show"),
    ]  # fmt: skip


def for_gstreamer(port):
    def case(what, key, wanted, location, *properties):
        return Case("GStreamer", what, key, wanted, gstreamer(location, *properties))

    host, shared, secure = "127.0.0.1", port["rtmp"], port["rtmps"]
    adobe, unchecked = "authmod=adobe", "tls-validation-flags=0"
    return [
        case("user:pass@, authmod=auto", "show", "live", f"rtmp://anna:sesame-1@{host}:{shared}/app/show"),
        case("user:pass@, authmod=adobe", "show", "live", f"rtmp://anna:sesame-1@{host}:{shared}/app/show", adobe),
        case("user:pass@, own port", "show", "live", f"rtmp://anna:sesame-1@{host}:{port['show']}/app/show", adobe),
        case("wrong password", "show", "wrong_credentials", f"rtmp://anna:wrong@{host}:{shared}/app/show", adobe),
        case("key only, own port", "open", "live", f"rtmp://{host}:{port['open']}/app/open"),
        case("another stream's port", "open", "wrong_port", f"rtmp://{host}:{port['other']}/key/open"),
        case("rtmps, user:pass@", "show", "live", f"rtmps://anna:sesame-1@{host}:{secure}/app/show", adobe, unchecked),
    ]  # fmt: skip


# What must stand nowhere in the origin's log.
SECRETS = ("sesame-", "tok-1", "tok-0")
