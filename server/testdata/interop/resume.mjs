// A client in a room that loses its connection, and comes back at another server for what it has missed.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.LULL_INTEROP_DIR}/`);
const { WebSocket } = require("ws");

const [one, other] = process.argv.slice(2);

// visit comes to a room. next waits for the next text of a type.
function visit(url) {
  const ws = new WebSocket(url, "lull.rooms.v1");
  const texts = [];
  let wake = () => {};
  ws.on("message", (data) => { texts.push(JSON.parse(data)); wake(); });
  ws.on("error", (err) => { console.error(err.message); process.exit(1); });
  const next = async (type) => {
    for (;;) {
      while (texts.length > 0) {
        const text = texts.shift();
        if (text.type === type) return text;
      }
      await new Promise((resolve) => { wake = resolve; });
    }
  };
  return { ws, next, opened: new Promise((resolve) => ws.once("open", resolve)) };
}

let anna = visit(one + "?name=anna");
console.log("there:", ...(await anna.next("members")).members.map((m) => m.name));
anna.ws.send("hello");
const { at } = await anna.next("message");
anna.ws.terminate();

const ben = visit(other + "?name=ben");
await ben.next("members");
ben.ws.send("tea?");
ben.ws.send(Buffer.from([0, 255]));
await ben.next("message");
await ben.next("message");

anna = visit(`${other}?name=anna&after=${at}`);
console.log("missed:", ...(await anna.next("missed")).messages.map((m) => m.text ?? m.binary));
ben.ws.send("back?");
console.log("then:", (await anna.next("message")).text);
process.exit(0);
