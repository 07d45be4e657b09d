"""An HTTP proxy on loopback that tunnels (CONNECT) to a fixed table of names, and refuses everything else with 502.

Tests reach imitations of NASA's services under their real names and over TLS through it, as a machine behind a site's
proxy does; nothing leaves loopback. Real proxies answer 502 or 504 when a host cannot be reached (squid, nginx).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servers.looped import Looped


@dataclass(eq=False)
class Proxy(Looped):
    """A running proxy."""

    table: dict[str, int]
    """Host → port on 127.0.0.1; read anew for each connection."""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """HOST:PORT of every tunnel that was asked for."""

    async def listen(self) -> asyncio.Server:
        """See Looped."""
        server = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.decode("latin-1").split(" ", 2)
            self.asked.append(target)
            port = self.table.get(target.rpartition(":")[0])
            if method != "CONNECT" or port is None:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
            else:
                await self._joined(reader, writer, port)
        writer.close()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, far), _copy(near, writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    target.close()


@contextmanager
def proxying(table: dict[str, int]) -> Iterator[Proxy]:
    """Run a proxy for these names while the block runs."""
    proxy = Proxy(table)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
