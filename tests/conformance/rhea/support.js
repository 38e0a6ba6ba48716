// What rhea's tests share: connections that end with their test, inboxes, outcomes, and a network that can be cut.
//
// rhea emits its events while it parses input, and drops those that nobody listens to. So whoever wants an event
// listens before it gives the event loop a chance: an inbox from its link's beginning on, `once` before any `await`.
'use strict';

const { randomBytes } = require('node:crypto');
const net = require('node:net');
const rhea = require('rhea');

const url = new URL(process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/');
const DEADLINE = 20000; // ms, a guard against hanging only

function unique(role) {
  return `${role}-${randomBytes(6).toString('hex')}`;
}

/** The context of the next event of that kind. */
function once(emitter, kind) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${kind}`)), DEADLINE);
    emitter.once(kind, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
  });
}

/** Resolves when the condition holds; rejects, naming `what`, at the deadline. */
async function until(condition, what) {
  const end = Date.now() + DEADLINE;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}

const dialled = new WeakMap(); // by test: its connections

/** A connection that is not open yet; it is closed when the test ends, those that were made later before it. */
function dial(t, options) {
  const connection = rhea.create_container().connect({
    host: url.hostname, port: Number(url.port), username: url.username, password: url.password, reconnect: false,
    ...options });
  connection.on('disconnected', () => {}); // rhea warns when nobody listens
  if (!dialled.has(t)) {
    dialled.set(t, []);
    t.after(async () => {
      for (const each of dialled.get(t).reverse()) {
        if (each.is_open()) await disconnect(each);
        else each.socket.destroy();
      }
    });
  }
  dialled.get(t).push(connection);
  return connection;
}

async function connect(t, options) {
  const connection = dial(t, options);
  await once(connection, 'connection_open');
  return connection;
}

async function disconnect(connection) {
  const closed = once(connection, 'connection_close');
  connection.close();
  await closed;
}

/** A receiver's messages, kept from the first on: those that come before somebody asks for them as well. */
class Inbox {
  constructor(parent, options) {
    this.contexts = [];
    this.wanted = [];
    this.link = parent.open_receiver({ credit_window: 0, autoaccept: false, ...options });
    this.link.on('message', (context) => {
      const waiting = this.wanted.shift();
      if (waiting) waiting(context);
      else this.contexts.push(context);
    });
  }

  static async open(parent, options) {
    const inbox = new Inbox(parent, options);
    await once(inbox.link, 'receiver_open');
    return inbox;
  }

  get address() {
    return this.link.source.address;
  }

  /** The next message, for which there is credit. */
  async arrival() {
    const context = this.contexts.shift();
    if (context) return context;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no message')), DEADLINE);
      this.wanted.push((found) => {
        clearTimeout(timer);
        resolve(found);
      });
    });
  }

  /** Give credit for one message, and wait for it. */
  async next() {
    this.link.add_credit(1);
    return this.arrival();
  }

  /** The next message, accepted. */
  async take() {
    const { message, delivery } = await this.next();
    delivery.accept();
    return message;
  }

  /** How many messages a drain brings: the broker sends what there is and uses up the rest of the credit. */
  async drained(credit) {
    const over = once(this.link, 'receiver_drained');
    this.link.drain = true;
    this.link.add_credit(credit);
    await over;
    this.link.drain = false;
    return this.contexts.length;
  }

  async close() {
    await end(this.link, 'receiver', 'close');
  }

  async detach() {
    await end(this.link, 'receiver', 'detach');
  }
}

/** Close or detach a link, and wait for the broker's answer. */
async function end(link, role, how) {
  const over = once(link, `${role}_close`);
  link[how]();
  await over;
}

/** A queue of its own, which is gone with the receiver that had it made. */
async function queue(parent, options) {
  return Inbox.open(parent, { source: { dynamic: true }, ...options });
}

/** Send a message; gives what became of it: { outcome, error, delivery }. */
async function deliver(parent, address, message, options) {
  const sender = parent.open_sender({ target: address, ...options });
  await once(sender, 'sendable');
  const outcomes = ['accepted', 'rejected', 'released', 'modified'].map((kind) => new Promise((resolve) => {
    sender.once(kind, ({ delivery }) => resolve({ outcome: kind, error: delivery.remote_state.error, delivery }));
  }));
  const settled = once(sender, 'settled');
  sender.send(message);
  await settled;
  const found = await Promise.race(outcomes); // which rhea tells first
  await end(sender, 'sender', 'close');
  return found;
}

/** Send a message that must be accepted. */
async function send(parent, address, message, options) {
  const { outcome, error } = await deliver(parent, address, message, options);
  if (outcome !== 'accepted') throw new Error(`${outcome}: ${error && error.description}`);
}

/** A network between client and broker: `cut` drops all its connections. */
async function proxy(t) {
  const sockets = new Set();
  const server = net.createServer((inner) => {
    const outer = net.connect(Number(url.port), url.hostname);
    for (const each of [inner, outer]) {
      sockets.add(each);
      each.on('error', () => {});
      each.on('close', () => sockets.delete(each));
    }
    inner.on('close', () => outer.destroy());
    outer.on('close', () => inner.destroy());
    inner.pipe(outer).pipe(inner);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const cut = () => sockets.forEach((each) => each.destroy());
  t.after(() => {
    server.close();
    cut();
  });
  return { host: '127.0.0.1', port: server.address().port, cut };
}

module.exports = { DEADLINE, Inbox, connect, deliver, dial, disconnect, end, once, proxy, queue, send, unique, until, url };
