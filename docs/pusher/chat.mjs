// The backend of a chat: it serves the page, and signs who may enter. See docs/pusher.md.
//
//	node docs/pusher/chat.mjs
//	lull serve --mode pusher --pusher-app 1:app-key:app-secret
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { PORT: port = 8000, PUSHER_JS: library, LULL: lull = "ws://127.0.0.1:8080" } = process.env;
const key = "app-key";
const sign = (text) => `${key}:${createHmac("sha256", "app-secret").update(text).digest("hex")}`;
const page = readFileSync(new URL("index.html", import.meta.url), "utf8");

// authorize answers what pusher-js asks before it subscribes. A real application looks at its
// session here, to know who this is and whether they may enter.
function authorize(asked) {
  const channel = asked.get("channel_name");
  if (channel !== "presence-chat") return [403, {}, "there is one room only"];
  const who = JSON.stringify({ user_id: randomUUID(), user_info: { name: asked.get("name").slice(0, 50) } });
  return [200, { "Content-Type": "application/json" }, JSON.stringify({ auth: sign(`${asked.get("socket_id")}:${channel}:${who}`), channel_data: who })];
}

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray()).toString();
  let answer = [404, {}, ""];
  if (request.url === "/auth" && request.method === "POST") answer = authorize(new URLSearchParams(body));
  if (request.url === "/") answer = [200, { "Content-Type": "text/html" }, page.replace("ws://127.0.0.1:8080", lull)];
  if (request.url === "/pusher.js") {
    answer = library ? [200, { "Content-Type": "text/javascript" }, readFileSync(library)] : [302, { Location: "https://js.pusher.com/8.4.0/pusher.min.js" }, ""];
  }
  const [status, headers, text] = answer;
  response.writeHead(status, headers).end(text);
}).listen(port, "127.0.0.1", function () {
  console.log(`http://127.0.0.1:${this.address().port}/`);
});
