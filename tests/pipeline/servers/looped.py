"""A server on loopback that runs an asyncio loop in a thread of its own and leaves no socket open when it ends."""

from __future__ import annotations

import asyncio
import threading


class Looped:
    """Subclasses say what listens."""

    def start(self) -> None:
        """Serve from now on."""
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close all connections and end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def listen(self) -> asyncio.Server:
        """Open the port."""
        raise NotImplementedError

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self.listen())
        ready.set()
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_end(server))
            self._loop.close()


async def _end(server: asyncio.Server) -> None:
    """Abort every socket of the loop, also those that are only just being accepted or in the middle of a TLS handshake,
    which no protocol knows; the loop keeps them all by descriptor."""
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(3):  # a connection whose transport is made after close() is lost half-made (CPython 3.11)
        await asyncio.sleep(0)
    server.close()
    known = getattr(loop, "_transports", {})
    quiet = 0
    for _ in range(300):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        alive = [transport for transport in list(known.values()) if getattr(transport, "_sock", None) is not None]
        for transport in alive:
            transport.abort()
        for task in others:
            task.cancel()
        quiet = 0 if alive or others else quiet + 1
        if quiet == 3:
            return
        await asyncio.sleep(0.003)
