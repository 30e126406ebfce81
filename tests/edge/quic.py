"""An independent implementation of QUIC and HTTP/3 as viewer, and as somebody who means harm."""

import asyncio
import contextlib
import socket
import ssl
import time
import urllib.parse

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset

from server import ENDS_WITHIN, fetch

ANSWERS_WITHIN = 15
H3_NO_ERROR = 0x100
# Bytes of a first datagram (RFC 9000 section 14.1).
SMALLEST = 1200


def configuration(**more):
    return QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, **more)


class Viewer(QuicConnectionProtocol):
    """One connection; many requests."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.h3 = H3Connection(self._quic)
        self.waiting = {}
        self.answers = {}
        self.refused = set()
        self.terminated = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
            for answered in self.waiting.values():
                if not answered.done():
                    answered.set_exception(ConnectionError(f"{event.error_code:#x} {event.reason_phrase}"))
        if isinstance(event, StreamReset):
            self.refused.add(event.stream_id)
        for told in self.h3.handle_event(event):
            if isinstance(told, HeadersReceived):
                self.answers[told.stream_id] = (dict(told.headers), bytearray())
            elif isinstance(told, DataReceived) and told.stream_id in self.answers:
                self.answers[told.stream_id][1].extend(told.data)
            if getattr(told, "stream_ended", False):
                self.ended(told.stream_id)

    def ended(self, stream):
        if stream not in self.answers:
            # Not even a status: the edge has given the request up.
            self.refused.add(stream)
        elif not self.waiting[stream].done():
            self.waiting[stream].set_result(None)

    def ask(self, path, method="GET", headers=()):
        """Sends a request; awaiting the result gives status, headers and body."""
        stream = self._quic.get_next_available_stream_id()
        self.waiting[stream] = asyncio.get_running_loop().create_future()
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *headers]
        self.h3.send_headers(stream, [(k.encode(), v.encode()) for k, v in fields], end_stream=True)
        self.transmit()
        return self.answer(stream)

    async def answer(self, stream):
        await asyncio.wait_for(self.waiting[stream], ANSWERS_WITHIN)
        headers, body = self.answers[stream]
        headers = {name.decode(): value.decode() for name, value in headers.items()}
        return int(headers[":status"]), headers, bytes(body)


def connected(site, **more):
    more.setdefault("configuration", configuration())
    return connect("127.0.0.1", site.https, create_protocol=Viewer, **more)


def over_tls(site, path, **more):
    return fetch(f"https://127.0.0.1:{site.https}{path}", **more)


async def the_same_as_over_tls(site):
    """Playlists, parts, init sections and refusals are the same bytes with the same validators."""
    listed, _ = site.newest_part()
    async with connected(site) as viewer:
        for path in ["/app/s0/index.m3u8", listed, "/app/none/index.m3u8", "/app/s0/d/nothing.m3u8"]:
            status, headers, body = await viewer.ask(path)
            other_status, other, other_body = over_tls(site, path)
            assert (status, body) == (other_status, other_body), path
            for name in ["etag", "cache-control", "content-type", "access-control-allow-origin"]:
                assert headers.get(name) == other.get(name), (path, name)
        status, headers, body = await viewer.ask(listed, headers=[("range", "bytes=0-9")])
        assert (status, len(body)) == (206, 10) and headers["content-range"].startswith("bytes 0-9/"), headers
        # (No HEAD: this client wants the announced length of it, against RFC 9110 section 8.6.)
        status, headers, _ = await viewer.ask(listed, headers=[("if-none-match", headers["etag"])])
        assert status == 304, status


async def a_hundred_holds_on_one_connection(site):
    """All are answered at once with the same playlist, which cost the origin a request for each part at most."""
    async with connected(site) as viewer:
        for _ in range(3):
            asked = [viewer.ask(f"{site.playlist()}?{site.next_position()}") for _ in range(100)]
            answers = await asyncio.gather(*asked)
            assert {status for status, _, _ in answers} == {200}
            # One playlist; more if news came between the requests.
            assert len({body for _, _, body in answers}) <= 10, "viewers are told different things"
        _, hinted = site.newest_part()
        parts = await asyncio.gather(*(viewer.ask(hinted) for _ in range(50)))
        assert len({(status, body) for status, _, body in parts}) == 1 and parts[0][0] == 200


async def keys_addresses_and_identifiers_change(site):
    """Key update (RFC 9001 section 6), a new connection identifier, and a client that comes from another port."""
    path, _ = site.newest_part()
    async with connected(site) as viewer:
        before = await viewer.ask(path)
        viewer._quic.request_key_update()
        assert await viewer.ask(path) == before
        viewer._quic.change_connection_id()
        assert await viewer.ask(path) == before
        loop = asyncio.get_running_loop()
        moved, _ = await loop.create_datagram_endpoint(
            lambda: viewer, local_addr=("::", 0), family=socket.AF_INET6
        )
        viewer._transport = moved
        status, _, body = await viewer.ask(path)
        assert (status, body) == (before[0], before[2])
        moved.close()


async def a_session_is_resumed_without_early_data(site):
    """What came before the handshake could be somebody else's: the edge takes none, and still the visit is shorter."""
    path, _ = site.newest_part()
    tickets = []
    async with connected(site, session_ticket_handler=tickets.append) as viewer:
        assert (await viewer.ask(path))[0] == 200
    assert tickets, "no ticket to resume with"
    assert tickets[-1].max_early_data_size is None, "early data is offered"
    async with connected(site, configuration=configuration(session_ticket=tickets[-1])) as viewer:
        assert viewer._quic.tls.session_resumed
        assert (await viewer.ask(path))[0] == 200


async def other_versions_and_protocols_are_refused(site):
    """Version negotiation (RFC 9000 section 6) is short and names a version; without h3 there is no connection."""
    quic = QuicConnection(configuration=configuration())
    quic.connect(("127.0.0.1", site.https), now=time.monotonic())
    initial = bytearray(quic.datagrams_to_send(now=time.monotonic())[0][0])
    initial[1:5] = b"\x1a\x2a\x3a\x4a"
    answer = exchange(site, [bytes(initial)])
    assert answer and answer[0][1:5] == b"\0\0\0\0" and b"\0\0\0\1" in answer[0], "no version negotiation"
    assert sum(map(len, answer)) <= 3 * len(initial)
    other = QuicConfiguration(is_client=True, alpn_protocols=["hq-interop"], verify_mode=ssl.CERT_NONE)
    with contextlib.suppress(ConnectionError):
        async with connect("127.0.0.1", site.https, configuration=other):
            raise AssertionError("hq-interop is let in")


def exchange(site, datagrams, listen=2.0):
    """Sends these and never anything again; what comes back."""
    with socket.socket(type=socket.SOCK_DGRAM) as outside:
        outside.connect(("127.0.0.1", site.https))
        for datagram in datagrams:
            outside.send(datagram)
        received = []
        end = time.monotonic() + listen
        while (left := end - time.monotonic()) > 0:
            outside.settimeout(left)
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                received.append(outside.recv(65536))
        return received


def first_flight(site):
    """What a client begins with, each time another one."""
    quic = QuicConnection(configuration=configuration())
    quic.connect(("127.0.0.1", site.https), now=time.monotonic())
    return [datagram for datagram, _ in quic.datagrams_to_send(now=time.monotonic())]


async def an_unproven_address_is_answered_with_little(site):
    """RFC 9000 section 8.1: three times what came from it. The library allows itself to fill the datagram in which that ends
    (https://github.com/quinn-rs/quinn/issues/1082). What is shorter than a first datagram may be gets nothing at all."""
    sizes = []
    for sent in (first_flight(site), first_flight(site) * 2):
        received = exchange(site, sent)
        sizes.append((sum(map(len, received)), sum(map(len, sent))))
        assert 0 < sizes[-1][0] <= 3 * sizes[-1][1] + SMALLEST, sizes
    whole = first_flight(site)[0]
    for sent in ([whole[: SMALLEST - 1]], [whole[:600]], [bytes([0x40]) + whole[1:]], [b"\0" * SMALLEST]):
        received = exchange(site, sent)
        assert sum(map(len, received)) <= len(sent[0]), "more than was sent"
    return ", ".join(f"{received} bytes for {sent}" for received, sent in sizes)


async def holes_in_streams_are_not_collected(site):
    """Every other byte of as much as may be sent, on as many streams as may be open, and never the first: what an edge
    keeps of it is bounded, and it ends."""
    connections, streams = 2, 40
    # What a viewer costs anyway is there before; the gauge is looked after twice a second.
    async with connected(site) as viewer:
        assert (await viewer.ask(f"{site.playlist()}?{site.next_position()}"))[0] == 200
    await asyncio.sleep(1)
    before = site.metric("weir_edge_memory_bytes")
    attackers = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(connections):
            viewer = await stack.enter_async_context(connected(site))
            attackers.append(viewer)
            await viewer.ask("/app/s0/index.m3u8")
            quic = viewer._quic
            for _ in range(streams):
                stream = quic.get_next_available_stream_id()
                quic.send_stream_data(stream, b"x" * 2000)
                pending = quic._streams[stream].sender._pending
                for at in range(0, 2000, 2):
                    pending.subtract(at, at + 1)
            viewer.transmit()
        # Somebody else meanwhile.
        async with connected(site) as good:
            for _ in range(20):
                playlist = good.ask(f"{site.playlist()}?{site.next_position()}")
                assert (await playlist)[0] == 200
        grown = site.metric("weir_edge_memory_bytes") - before
        # What the good viewer watches is kept, too: 25 kB a second.
        assert grown < 12 << 20, f"{grown / (1 << 20):.0f} MiB for {connections} connections"
        # Heads have ten seconds to arrive; then nothing of it is kept.
        end = time.monotonic() + 20
        while any(viewer.terminated is None and not viewer.refused for viewer in attackers):
            assert time.monotonic() < end, "requests without a beginning are waited for"
            await asyncio.sleep(0.2)
    return f"{grown / (1 << 20):.1f} MiB more for {connections} connections full of holes"


async def goaway_then_the_answer_then_the_end(site):
    """SIGTERM: what is held is answered, the connection closes without an error."""
    async with connected(site) as viewer:
        held = [viewer.ask(f"{site.playlist()}?{site.next_position()}") for _ in range(20)]
        ending = asyncio.get_running_loop().run_in_executor(None, site.edge.end)
        for status, _, _ in await asyncio.gather(*held):
            assert status == 200, status
        took = await ending
        assert took < ENDS_WITHIN - 1, took
        assert site.edge.process.returncode == 0, site.edge.process.returncode
        await asyncio.wait_for(viewer.wait_closed(), ENDS_WITHIN)
        assert viewer.terminated and viewer.terminated.error_code == H3_NO_ERROR, viewer.terminated
    return f"ended in {took:.1f} s"


CASES = [
    the_same_as_over_tls,
    a_hundred_holds_on_one_connection,
    keys_addresses_and_identifiers_change,
    a_session_is_resumed_without_early_data,
    other_versions_and_protocols_are_refused,
    an_unproven_address_is_answered_with_little,
    holes_in_streams_are_not_collected,
]
# Leaves no edge behind.
LAST = goaway_then_the_answer_then_the_end
