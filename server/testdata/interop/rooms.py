"""Two clients in one room and one in another: each says something, and all print what they hear."""

import asyncio
import sys

import websockets


async def main(one, other):
    async with websockets.connect(one) as a, websockets.connect(one) as b, websockets.connect(other) as c:
        await a.send("hello")
        await c.send("tea")
        for guests in [a, b], [c]:
            heard = [await asyncio.wait_for(guest.recv(), 20) for guest in guests]
            print(len(heard), "×", *set(heard))


asyncio.run(main(*sys.argv[1:]))
