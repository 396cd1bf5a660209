// What a browser's WebSocket and the one of Node's ws have in common, which is
// all that most talks need.

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
export const toBase64 = (bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));

// talk connects, does what it is asked to step by step, waits for the end and
// returns what it saw. more returns the steps that only one client can do.
export async function talk(WebSocket, ask, more = () => ({})) {
  const saw = { id: ask.id, received: [] };
  const options = ask.window && { perMessageDeflate: { serverMaxWindowBits: ask.window } }; // pages have none
  const socket = new WebSocket(ask.url, ask.protocols, options);
  socket.binaryType = "arraybuffer";

  let ended = false;
  let happened = () => {};
  // The end of the connection ends all waiting, so that it gets reported.
  const until = async (condition) => {
    while (!ended && !condition()) {
      await new Promise((resolve) => (happened = resolve));
    }
  };

  socket.onopen = () => {
    Object.assign(saw, { opened: true, protocol: socket.protocol, extensions: socket.extensions });
    happened();
  };
  socket.onmessage = ({ data }) => {
    const text = typeof data === "string";
    const bytes = text ? encoder.encode(data) : new Uint8Array(data);
    saw.received.push({ op: text ? "text" : "binary", data: toBase64(bytes) });
    happened();
  };
  socket.onclose = ({ code, reason, wasClean }) => {
    if (saw.opened) {
      Object.assign(saw, { code, reason, clean: wasClean });
    }
    ended = true;
    happened();
  };
  socket.onerror = () => {}; // onclose follows

  const steps = {
    send({ op, data = "" }) {
      const bytes = fromBase64(data);
      socket.send(op === "text" ? decoder.decode(bytes) : bytes);
    },
    receive: ({ count }) => until(() => saw.received.length >= count),
    close({ code, reason }) {
      if (code === undefined) {
        socket.close();
      } else {
        socket.close(code, reason);
      }
    },
    ...more(socket, saw, until, () => happened()),
  };

  try {
    await until(() => saw.opened);
    for (const step of ask.steps ?? []) {
      if (ended) {
        break;
      }
      await steps[step.do](step);
    }
    await until(() => false);
  } catch (error) {
    saw.error = String(error);
  }
  return saw;
}
