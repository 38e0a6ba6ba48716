// What the tests of both APIs share: the broker's address, unique names, and a network that can be cut.
'use strict';

const { randomBytes } = require('node:crypto');
const net = require('node:net');

const URL_TEXT = process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/';
const DEADLINE = 20000; // ms, a guard against hanging only

function name(role) {
  return `${role}-${randomBytes(6).toString('hex')}`;
}

function withCredentials(user, password) {
  const url = new URL(URL_TEXT);
  url.username = user;
  url.password = password;
  return url.toString();
}

/** Resolves when the condition holds; rejects, naming `what`, at the deadline. The condition may be async. */
async function until(condition, what) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The next event of an emitter, as an array of its arguments. */
function event(emitter, kind) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${kind} event`)), DEADLINE);
    emitter.once(kind, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
}

/** A network between client and broker: `cut` drops all its connections. */
async function proxy() {
  const target = new URL(URL_TEXT);
  const sockets = new Set();
  const server = net.createServer((inner) => {
    const outer = net.connect(Number(target.port || 5672), target.hostname);
    for (const each of [inner, outer]) {
      sockets.add(each);
      each.on('error', () => {});
      each.on('close', () => sockets.delete(each));
    }
    inner.on('close', () => outer.destroy());
    outer.on('close', () => inner.destroy());
    inner.pipe(outer).pipe(inner);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(URL_TEXT);
  url.hostname = '127.0.0.1';
  url.port = server.address().port;
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return {
    url: url.toString(),
    cut,
    close: () => new Promise((resolve) => { server.close(resolve); cut(); }),
  };
}

const LARGE_BODY = Buffer.alloc(3 << 20, 'dragoman ');

module.exports = { URL_TEXT, LARGE_BODY, name, withCredentials, until, event, proxy };
