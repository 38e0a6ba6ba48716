// rhea: connections, sessions and links. Logins, refusals, stealing, subscriptions, dynamic nodes, time-outs, cuts.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Inbox, connect, deliver, dial, disconnect, end, once, proxy, queue, send, unique, until } = require('./support');

test('what the broker says of itself', async (t) => {
  const connection = await connect(t);
  for (const name of ['product', 'version']) assert.ok(connection.properties[name], name);
  assert.ok(connection.offered_capabilities.includes('ANONYMOUS-RELAY'));
  assert.ok(connection.max_frame_size >= 512);
});

test('a wrong password', async (t) => {
  const connection = dial(t, { password: 'wrong' });
  const { error } = await once(connection, 'connection_error');
  assert.equal(error.condition, 'amqp:unauthorized-access');
});

test('a virtual host that is not there', async (t) => {
  const connection = dial(t, { hostname: 'vhost:there-is-no-such-host' });
  await once(connection, 'connection_error');
  assert.equal(connection.error.condition, 'amqp:not-found');
  assert.equal(connection.properties['amqp:connection-establishment-failed'], true);
});

test('a link to what is not there is refused', async (t) => {
  const connection = await connect(t);
  for (const [role, terminus] of [['sender', 'target'], ['receiver', 'source']]) {
    const link = connection[`open_${role}`]({ [terminus]: '/queues/there-is-no-such-queue' });
    const opened = once(link, `${role}_open`);
    const failed = once(link, `${role}_error`);
    await opened; // an attach without a terminus goes before the detach (2.6.3)
    assert.equal(link[terminus].address, undefined);
    await failed;
    assert.equal(link.error.condition, 'amqp:not-found');
    assert.equal(link.remote.detach.closed, true);
  }
});

test('several sessions of a connection', async (t) => {
  const connection = await connect(t);
  const keeper = await queue(connection);
  const sessions = [1, 2, 3].map(() => connection.create_session());
  for (const session of sessions) {
    const opened = once(session, 'session_open');
    session.open();
    await opened;
  }
  const inboxes = [];
  for (const session of sessions) {
    inboxes.push(await queue(session));
    await send(session, inboxes.at(-1).address, { body: inboxes.length });
  }
  for (const [at, inbox] of inboxes.entries()) assert.equal((await inbox.take()).body, at + 1);
  // One that ends gives back what it has not settled, and the others go on.
  await send(connection, keeper.address, { body: 'unsettled' });
  const reader = await Inbox.open(sessions[0], { source: keeper.address });
  await reader.next();
  const ended = once(sessions[0], 'session_close');
  sessions[0].close();
  await ended;
  assert.equal((await keeper.take()).body, 'unsettled');
  await send(sessions[1], inboxes[1].address, { body: 'still here' });
  assert.equal((await inboxes[1].take()).body, 'still here');
});

test('a link is stolen by another of its name', async (t) => {
  const id = unique('container');
  const keeper = await queue(await connect(t));
  const [first, second] = [await connect(t, { container_id: id }), await connect(t, { container_id: id })];
  const robbed = await Inbox.open(first, { name: 'link', source: keeper.address });
  const stolen = once(robbed.link, 'receiver_error');
  const thief = await Inbox.open(second, { name: 'link', source: keeper.address });
  await stolen;
  assert.equal(robbed.link.error.condition, 'amqp:link:stolen');
  await send(second, keeper.address, { body: 'x' });
  assert.equal((await thief.take()).body, 'x');
  // A sender of that name is another link: the names count in each direction.
  const sender = second.open_sender({ name: 'link', target: keeper.address });
  await once(sender, 'sendable');
  assert.equal(thief.link.is_open(), true);
});

test('a container that wants to be connected once', async (t) => {
  const options = { container_id: unique('container'), desired_capabilities: ['sole-connection-for-container'] };
  const first = await connect(t, options);
  assert.ok(first.offered_capabilities.includes('sole-connection-for-container'));
  const second = dial(t, options);
  await once(second, 'connection_error');
  assert.equal(second.error.condition, 'amqp:invalid-field');
  assert.equal(second.error.info['invalid-field'], 'container-id');
  assert.equal(second.properties['amqp:connection-establishment-failed'], true);
  await disconnect(first);
  await connect(t, options);
});

test('a temporary topic', async (t) => {
  const connection = await connect(t);
  const topic = await Inbox.open(connection, { source: { dynamic: true, capabilities: ['temporary-topic'] } });
  const other = await Inbox.open(connection, { source: { address: topic.address, capabilities: ['topic'] } });
  await send(connection, topic.address, { body: 'to both' });
  assert.equal((await topic.take()).body, 'to both');
  assert.equal((await other.take()).body, 'to both');
  await other.close();
  const { address } = topic;
  await topic.close();
  const sender = connection.open_sender({ target: address });
  await once(sender, 'sender_error');
  assert.equal(sender.error.condition, 'amqp:not-found');
});

test('a dynamic target', async (t) => {
  const connection = await connect(t);
  const sender = connection.open_sender({ target: { dynamic: true } });
  await once(sender, 'sendable');
  const { address } = sender.target;
  assert.ok(address);
  const inbox = await Inbox.open(connection, { source: address });
  sender.send({ body: 'x' });
  assert.equal((await inbox.take()).body, 'x');
  const gone = once(inbox.link, 'receiver_error');
  await end(sender, 'sender', 'close'); // and with it the queue
  await gone;
  assert.equal(inbox.link.error.condition, 'amqp:resource-deleted');
});

test('a durable subscription', async (t) => {
  const options = { container_id: unique('container') };
  const address = `amq.topic/${unique('key')}`;
  const subscription = { name: 'sub', source: { address, durable: 2, expiry_policy: 'never' } };
  const publisher = await connect(t);
  const first = await connect(t, options);
  await (await Inbox.open(first, subscription)).detach();
  await disconnect(first);
  await send(publisher, address, { body: 'meanwhile' });
  const second = await connect(t, options);
  const inbox = await Inbox.open(second, subscription);
  assert.equal((await inbox.take()).body, 'meanwhile');
  await inbox.close(); // which ends the subscription
  const { outcome } = await deliver(publisher, address, { body: 'nobody listens' });
  assert.equal(outcome, 'rejected');
});

test('a shared durable subscription', async (t) => {
  const address = `amq.topic/${unique('key')}`;
  const name = unique('shared');
  const source = { address, durable: 2, expiry_policy: 'never', capabilities: ['shared', 'global', 'topic'] };
  const open = async () => Inbox.open(await connect(t), { name: `${name}|global`, source });
  const [one, other] = [await open(), await open()];
  one.link.add_credit(5);
  other.link.add_credit(5);
  const publisher = await connect(t);
  for (let number = 0; number < 10; number += 1) await send(publisher, address, { body: number });
  const got = [];
  for (const inbox of [one, other]) {
    for (let count = 0; count < 5; count += 1) {
      const { message, delivery } = await inbox.arrival();
      got.push(message.body);
      delivery.accept();
    }
  }
  assert.deepEqual(got.sort(), [...Array(10).keys()]);
  await one.detach();
  await other.detach();
  await send(publisher, address, { body: 'meanwhile' });
  const last = await open();
  assert.equal((await last.take()).body, 'meanwhile');
  await last.close(); // nobody else receives: it ends
  assert.equal((await deliver(publisher, address, { body: 'nobody listens' })).outcome, 'rejected');
});

test('no traffic: the broker shows signs of life', async (t) => {
  const connection = dial(t, { idle_time_out: 1000 });
  let reads = 0;
  connection.on('connection_close', () => assert.fail('rhea has heard nothing and closes'));
  await once(connection, 'connection_open');
  connection.socket.on('data', (data) => {
    assert.equal(data.toString('hex'), '0000000802000000'); // the empty frame
    reads += 1;
  });
  await until(() => reads >= 4, 'four signs of life'); // rhea gives up after two seconds without
  assert.equal(connection.is_open(), true);
  connection.socket.removeAllListeners('data');
  connection.removeAllListeners('connection_close');
  connection.socket.on('data', connection.input.bind(connection));
});

test('a cut connection is made again, with its links', async (t) => {
  const keeper = await queue(await connect(t));
  const network = await proxy(t);
  const connection = await connect(t, { host: network.host, port: network.port, reconnect: 20 });
  const inbox = await Inbox.open(connection, { source: keeper.address });
  const sender = connection.open_sender({ target: keeper.address });
  await once(sender, 'sendable');
  sender.send({ body: 'unsettled' });
  await inbox.next();
  const [lost, again] = [once(connection, 'disconnected'), once(connection, 'connection_open')];
  const [sendable, attached] = [once(sender, 'sendable'), once(inbox.link, 'receiver_open')];
  network.cut();
  assert.equal((await lost).reconnecting, true);
  await Promise.all([again, sendable, attached]);
  const { message, delivery } = await inbox.next();
  assert.equal(message.body, 'unsettled');
  assert.equal(message.first_acquirer ?? false, false);
  delivery.accept();
  sender.send({ body: 'after' });
  assert.equal((await inbox.take()).body, 'after');
  await disconnect(connection);
});
