// A chat with login. See docs/hooks.md.
//
//	node docs/hooks/node/chat.mjs
//	lull serve --mode hooks --hook http://127.0.0.1:8000/lull --origin http://127.0.0.1:8000
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { LULL_HOOK_SECRET: secret, LULL_API: api = "http://127.0.0.1:8081", PORT: port = 8000 } = process.env;
const page = (name) => readFileSync(new URL(`../${name}.html`, import.meta.url));
const sessions = new Map(); // names of those who have logged in
const nameOf = (request) => sessions.get(/(?:^|; )session=(\w+)/.exec(request.headers.cookie)?.[1]);

function genuine({ headers }, body) {
	const head = ["timestamp", "id", "event", "connection", "user"].map((name) => headers[`lull-${name}`] + "\n").join("");
	const want = Buffer.from("v1=" + createHmac("sha256", secret).update(head).update(body).digest("hex"));
	const got = Buffer.from(headers["lull-signature"] ?? "");
	return got.length === want.length && timingSafeEqual(got, want) && Math.abs(Date.now() / 1000 - headers["lull-timestamp"]) < 300;
}

async function lull(request, body) {
	const { "lull-event": event, "lull-user": user = "" } = request.headers;
	if (secret && event && !genuine(request, body)) return [403, {}, "this is not from lull"];
	if (event === "connect") {
		const name = nameOf(request);
		return name ? [200, {}, JSON.stringify({ user: name, topics: ["chat"] })] : [403, { "Content-Type": "text/plain" }, "log in first"];
	}
	if (event === "message") return [200, { "Content-Type": "text/plain", "Lull-Topic": "chat" }, `${decodeURIComponent(user)}: ${body}`];
	if (event === "disconnect") {
		const left = { method: "POST", body: `${decodeURIComponent(user)} has left` };
		await fetch(`${api}/topics/chat`, left).catch(() => {}); // lull has ended, and everybody has left
	}
	return [204, {}, ""];
}

function index(request, body) {
	if (request.method !== "POST") return [200, { "Content-Type": "text/html" }, page(nameOf(request) ? "chat" : "login")];
	const session = randomBytes(16).toString("hex");
	sessions.set(session, new URLSearchParams(body.toString()).get("name"));
	return [302, { Location: "/", "Set-Cookie": `session=${session}; HttpOnly; SameSite=Lax` }, ""];
}

createServer(async (request, response) => {
	const body = Buffer.concat(await request.toArray());
	const [status, headers, answer] = request.url === "/lull" ? await lull(request, body) : index(request, body);
	response.writeHead(status, headers).end(answer);
}).listen(port, "127.0.0.1");
