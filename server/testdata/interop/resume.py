"""A client in a room that loses its connection, and comes back at another server for what it has missed."""

import asyncio
import json
import sys

import websockets


async def texts(ws, kind):
    """The next text of a type."""
    while True:
        text = json.loads(await asyncio.wait_for(ws.recv(), 20))
        if text["type"] == kind:
            return text


async def main(one, other):
    protocols = ["lull.rooms.v1"]
    async with websockets.connect(one + "?name=anna", subprotocols=protocols) as anna:
        assert anna.subprotocol == "lull.rooms.v1"
        print("there:", *[m["name"] for m in (await texts(anna, "members"))["members"]])
        await anna.send("hello")
        position = (await texts(anna, "message"))["at"]
    async with websockets.connect(other + "?name=ben", subprotocols=protocols) as ben:
        await ben.send("tea?")
        await ben.send(b"\x00\xff")
        for _ in range(2):
            last = await texts(ben, "message")
        async with websockets.connect(other + "?name=anna&after=" + position, subprotocols=protocols) as anna:
            missed = await texts(anna, "missed")
            print("missed:", *[m.get("text") or m["binary"] for m in missed["messages"]])
            assert missed["at"] and last["at"]
            await ben.send("back?")
            print("then:", (await texts(anna, "message"))["text"])


asyncio.run(main(*sys.argv[1:]))
