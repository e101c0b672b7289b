"""A proxy between a connection and a scripted server."""

from __future__ import annotations

import socket
import threading


class Tunnel:
    """An HTTP proxy for CONNECT, or a SOCKS5 one, which sends everything to one port."""

    def __init__(self, kind: str, port: int) -> None:
        self.asked: list[bytes] = []
        self._kind = kind
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            if self._kind == "http":
                self.asked.append(self._head(client))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                self.asked.append(client.recv(3))
                client.sendall(b"\x05\x00")
                self.asked.append(client.recv(300))
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01")
            back = threading.Thread(target=self._pump, args=(server, client))
            back.start()
            self._pump(client, server)
            back.join()

    @staticmethod
    def _head(client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1000)
        return head

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()
        self._thread.join()
