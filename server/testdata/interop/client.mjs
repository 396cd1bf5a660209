// Node's ws: takes talks from standard input, one JSON object a line, has all
// of them at once and prints what each saw.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fromBase64, talk, toBase64 } from "./talk.mjs";

const { WebSocket } = createRequire(`${process.env.LULL_INTEROP_DIR}/`)("ws");

function more(socket, saw, until, happened) {
  Object.assign(saw, { pongs: [], pings: 0 });
  socket.on("ping", () => {
    saw.pings++;
    happened();
  });
  socket.on("pong", (data) => {
    saw.pongs.push(toBase64(data));
    happened();
  });
  socket.on("unexpected-response", (_, response) => {
    saw.status = response.statusCode;
    socket.terminate(); // ws leaves that to who listens for this event
  });

  const ping = async (data) => {
    const before = saw.pongs.length;
    socket.ping(fromBase64(data));
    await until(() => saw.pongs.length > before);
  };
  return {
    ping: ({ ping: data = "" }) => ping(data),
    pinged: ({ count }) => until(() => saw.pings >= count),
    // Between fragments it pings: their pongs show that the server has them.
    async fragments({ op, parts, ping: data }) {
      for (const [i, part] of parts.entries()) {
        if (i > 0) {
          await ping(data);
        }
        socket.send(fromBase64(part), { binary: op === "binary", fin: i === parts.length - 1 });
      }
    },
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  talk(WebSocket, JSON.parse(line), more).then((saw) => console.log(JSON.stringify(saw)));
}
