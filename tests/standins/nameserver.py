"""A small authoritative DNS server over UDP and TCP, for the stand-ins that hold records."""

import asyncio
import struct
from collections.abc import Callable, Iterable

from dnslib import AAAA, CNAME, MX, NS, QTYPE, RCODE, RR, TXT, A, DNSError, DNSRecord

Rows = Iterable[tuple[str, str, int]]  # type, content, ttl
MAKERS = {
    "A": A,
    "AAAA": AAAA,
    "CNAME": CNAME,
    "NS": NS,
    "MX": lambda text: MX(text, 10),
    "TXT": lambda text: TXT(text.strip('"')),
}
UDP_MAX = 512


class NameServer:
    """Answers for what `rows(name)` holds: None is a name that does not exist.

    `failing` makes it answer SERVFAIL, `silent` nothing at all. `truncate`: UDP answers say
    "ask by TCP".
    """

    def __init__(self, rows: Callable[[str], Rows | None]) -> None:
        self.rows = rows
        self.failing = self.silent = self.truncate = False
        self.asked: list[tuple[str, str, str]] = []  # transport, name, type
        self.port = 0

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):  # the same port is needed for both transports
            self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", port)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
            except OSError:
                self._tcp.close()
                await self._tcp.wait_closed()
            else:
                return
        raise OSError("no port is free for both UDP and TCP")

    async def stop(self) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, data: bytes, transport: str) -> bytes | None:
        try:
            request = DNSRecord.parse(data)
        except DNSError:
            return None
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        self.asked.append((transport, name, kind))
        if self.silent:
            return None
        reply = request.reply()
        if self.failing:
            reply.header.rcode = RCODE.SERVFAIL
            return reply.pack()
        rows = self.rows(name)
        if rows is None:
            reply.header.rcode = RCODE.NXDOMAIN
        self._fill(reply, name, kind, list(rows or ()))
        packed = reply.pack()
        if transport == "udp" and (self.truncate or len(packed) > UDP_MAX):
            short = request.reply()
            short.header.tc = 1
            return short.pack()
        return packed

    def _fill(self, reply: DNSRecord, name: str, kind: str, rows: list) -> None:
        for _ in range(8):
            aliases = [row for row in rows if row[0] == "CNAME"]
            hits = [row for row in rows if row[0] == kind] or aliases
            for type_, content, ttl in hits:
                reply.add_answer(
                    RR(name, getattr(QTYPE, type_), ttl=ttl, rdata=MAKERS[type_](content))
                )
            if not aliases or kind == "CNAME":
                return
            name = aliases[0][1]
            rows = list(self.rows(name) or ())

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            answer = self.answer(await reader.readexactly(size), "tcp")
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self.server = server

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        answer = self.server.answer(data, "udp")
        if answer is not None:
            self.transport.sendto(answer, addr)
