"""Python's websockets: takes talks from standard input, one JSON object a line,
has all of them at once and prints what each saw."""

import asyncio
import base64
import json
import sys

# Debian 12's package has only this interface. Later ones still have it, beside
# another with other exceptions.
from websockets.exceptions import ConnectionClosed, InvalidStatusCode
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.legacy.client import connect


def decode(op, data):
    data = base64.b64decode(data)
    return data.decode() if op == "text" else data


def encode(message):
    if isinstance(message, str):
        return {"op": "text", "data": base64.b64encode(message.encode()).decode()}
    return {"op": "binary", "data": base64.b64encode(message).decode()}


class Talk:
    """Does the steps of one talk. Its methods are their names."""

    def __init__(self, socket, saw):
        self.socket = socket
        self.saw = saw
        self.received = asyncio.Condition()
        self.ended = False

    async def listen(self):
        """Receives until the connection ends."""
        try:
            while True:
                self.saw["received"].append(encode(await self.socket.recv()))
                async with self.received:
                    self.received.notify_all()
        except ConnectionClosed as end:
            if end.rcvd is not None:
                self.saw.update(code=end.rcvd.code, reason=end.rcvd.reason)
            self.saw["clean"] = end.rcvd is not None and end.sent is not None
        self.ended = True
        async with self.received:
            self.received.notify_all()

    async def send(self, op, data=""):
        await self.socket.send(decode(op, data))

    async def receive(self, count):
        async with self.received:
            await self.received.wait_for(lambda: self.ended or len(self.saw["received"]) >= count)

    async def ping(self, ping=""):
        pong = await self.socket.ping(base64.b64decode(ping))
        await pong  # the one with the same data
        self.saw["pongs"].append(ping)

    async def fragments(self, op, parts, ping):
        async def each():
            for i, part in enumerate(parts):
                if i > 0:
                    await self.ping(ping)
                yield decode(op, part)

        await self.socket.send(each())

    async def close(self, code=1000, reason=""):
        await self.socket.close(code, reason)


def offers(ask):
    """Offers a window, or else leaves it to websockets what to offer."""
    if "window" not in ask:
        return None
    return [ClientPerMessageDeflateFactory(server_max_window_bits=ask["window"])]


async def talk(ask):
    saw = {"id": ask["id"], "received": [], "pongs": []}
    try:
        socket = await connect(
            ask["url"],
            subprotocols=ask.get("protocols"),
            extensions=offers(ask),
            max_size=None,
            ping_interval=None,  # its own pings would answer for its pongs
        )
        names = (extension.name for extension in socket.extensions)
        saw.update(opened=True, protocol=socket.subprotocol or "", extensions=",".join(names))
        this = Talk(socket, saw)
        listening = asyncio.create_task(this.listen())
        try:
            for step in ask.get("steps", []):
                await getattr(this, step.pop("do"))(**step)
        except ConnectionClosed:
            pass  # listen has seen it too
        await listening
        await socket.wait_closed()
    except InvalidStatusCode as refusal:
        saw["status"] = refusal.status_code
    except Exception as error:  # the test shall see any
        saw["error"] = repr(error)
    print(json.dumps(saw), flush=True)


async def main():
    tasks = []  # the loop itself keeps tasks only weakly
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        tasks.append(asyncio.create_task(talk(json.loads(line))))


asyncio.run(main())
