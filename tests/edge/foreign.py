"""Somebody else's origin behind a static route: ffmpeg's own HLS (no parts, nothing held) out of nginx."""

import pathlib
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from server import Site, fetch, free_ports
from tools import need

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    types {{ application/vnd.apple.mpegurl m3u8; video/mp4 mp4 m4s; }}
    server {{ listen 127.0.0.1:{port}; location / {{ root {folder}; }} }}
}}
"""
VIEWERS = 20


def ffmpeg_behind_nginx_through_a_route(programs):
    """Twenty viewers wait for the next segment at an origin that holds nothing; ffmpeg plays what they are given."""
    need("ffmpeg", "ffprobe", "nginx")
    (port,) = free_ports(1)
    route = {"prefix": "/theirs", "name": "ffmpeg", "upstream": f"http://127.0.0.1:{port}/hls"}
    with Site(*programs, routes=[route]) as site:
        folder = pathlib.Path(site.folder.name)
        # nginx's worker is nobody where its master is root.
        folder.chmod(0o755)
        (folder / "hls").mkdir()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        nginx = site.start("nginx", ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"])
        picture = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-t", "60", "-c:v", "libx264"]
        picture += ["-preset", "ultrafast", "-b:v", "300k", "-g", "25", "-f", "hls", "-hls_time", "1", "-hls_list_size", "6"]
        picture += ["-hls_segment_type", "fmp4", "-hls_flags", "delete_segments+independent_segments"]
        picture += ["-master_pl_name", "master.m3u8", str(folder / "hls" / "video.m3u8")]
        encoder = site.start("ffmpeg", ["ffmpeg", "-hide_banner", "-nostdin", "-v", "error", *picture])
        at = f"http://127.0.0.1:{site.http}/theirs"
        master = folder / "hls" / "master.m3u8"
        encoder.until("ffmpeg", lambda: master.exists() and "STREAM-INF" in master.read_text())
        nginx.until("nginx", lambda: fetch(f"http://127.0.0.1:{port}/hls/master.m3u8")[0] == 200)
        status, headers, entrance = fetch(f"{at}/master.m3u8")
        assert status == 200 and b"video.m3u8" in entrance, entrance
        assert headers["access-control-allow-origin"] == "*", headers

        def watch(_):
            """Three reloads, each held until there is something new."""
            newest = -1
            for _ in range(3):
                query = f"?_HLS_msn={newest + 1}" if newest >= 0 else ""
                status, _, text = fetch(f"{at}/video.m3u8{query}")
                assert status == 200, (status, text)
                first = int(re.search(rb"MEDIA-SEQUENCE:(\d+)", text)[1])
                last = first + text.count(b"#EXTINF") - 1
                assert last > newest, "it was not held"
                newest = last
                segment = re.findall(rb"^[^#\s]+$", text, re.MULTILINE)[-1].decode()
                status, _, body = fetch(f"{at}/{segment}")
                assert status == 200 and len(body) > 100, segment
            return newest

        with ThreadPoolExecutor(VIEWERS) as pool:
            assert max(pool.map(watch, range(VIEWERS))) >= 2
        asked = (folder / "access.log").read_text().splitlines()
        segments = [line.split()[6] for line in asked if ".m4s" in line]
        assert len(segments) == len(set(segments)), "a segment was asked for twice"
        assert site.metric('weir_edge_route_requests_total{route="ffmpeg"') > 5 * VIEWERS
        took = time.monotonic()
        probe = ["ffprobe", "-v", "error", "-read_intervals", "%+2", "-count_packets", "-show_entries"]
        probe += ["stream=codec_name,nb_read_packets", "-of", "csv=p=0", f"{at}/master.m3u8"]
        told = subprocess.run(probe, capture_output=True, text=True, timeout=40)
        assert told.returncode == 0 and told.stdout.startswith("h264,"), told
        return f"{len(segments)} segments, each once; ffprobe in {time.monotonic() - took:.1f} s"


CASES = [ffmpeg_behind_nginx_through_a_route]
