// A server with Node's ws whose clients are in rooms and speak JSON. It prints its
// address, and when its standard input ends, how many messages of each type it got.

import { createServer } from "node:http";
import { createRequire } from "node:module";

const { WebSocketServer } = createRequire(`${process.env.LULL_INTEROP_DIR}/`)("ws");

const server = createServer();
const sockets = new WebSocketServer({
  server,
  path: "/socket",
  handleProtocols: (offered) => offered.has("json.v2") && "json.v2",
  verifyClient: ({ req }) => req.headers.origin === "http://127.0.0.1:3000" && /^session=\w{6}$/.test(req.headers.cookie),
});
const rooms = new Map();
const got = {};

sockets.on("connection", (socket, request) => {
  const name = new URL(request.url, "http://host").searchParams.get("room");
  const room = rooms.get(name) ?? new Set();
  rooms.set(name, room);
  const say = (what) => socket.send(JSON.stringify(what));
  say({ type: "hello" });
  socket.on("close", () => room.delete(socket));
  socket.on("message", (data, isBinary) => {
    let message = {};
    try {
      message = isBinary ? {} : JSON.parse(data);
    } catch {}
    got[message.type] = (got[message.type] ?? 0) + 1;
    switch (message.type) {
      case "login":
        return say({ type: "welcome", token: message.token });
      case "join":
        room.add(socket);
        return say({ type: "joined", room: name });
      case "message":
        for (const other of room) {
          other.send(JSON.stringify({ type: "said", text: message.text }));
        }
        return say({ ack: message.id });
      case "ping":
        return say({ type: "pong" });
    }
    socket.close(1003, "bad json");
  });
});

server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
process.stdin.resume().on("end", () => {
  console.log(JSON.stringify(got));
  process.exit();
});
