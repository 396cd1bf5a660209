"""A server with Python's websockets. Whoever says "join" is in the room: it is answered
"joined", and what it says goes to all in the room. To everybody else an answer is an echo."""

import asyncio

# Debian 12's package has only this interface. Later ones still have it.
from websockets.exceptions import ConnectionClosed
from websockets.legacy.protocol import broadcast
from websockets.legacy.server import serve

room = set()


async def talk(socket):
    try:
        async for message in socket:
            if message == "join":
                room.add(socket)
                await socket.send("joined")
            elif socket in room:
                broadcast(room, message)
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    finally:
        room.discard(socket)


async def main():
    async with serve(lambda socket, _: talk(socket), "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
