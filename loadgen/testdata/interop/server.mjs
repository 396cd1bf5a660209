// A server with Node's ws. Whoever says "join" is in the room: it is answered "joined",
// and what it says goes to all in the room. To everybody else an answer is an echo.
//
//	node server.mjs [CERTIFICATE KEY]

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { createRequire } from "node:module";

const { WebSocketServer } = createRequire(`${process.env.LULL_INTEROP_DIR}/`)("ws");

const [cert, key] = process.argv.slice(2).map((path) => readFileSync(path));
const server = cert ? createSecureServer({ cert, key }) : createServer();
const room = new Set();

new WebSocketServer({ server, perMessageDeflate: true }).on("connection", (socket) => {
  socket.on("message", (data, binary) => {
    if (!binary && data.toString() === "join") {
      room.add(socket);
      socket.send("joined");
      return;
    }
    for (const receiver of room.has(socket) ? room : [socket]) {
      receiver.send(data, { binary });
    }
  });
  socket.on("close", () => room.delete(socket));
  socket.on("error", () => {}); // close follows
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
