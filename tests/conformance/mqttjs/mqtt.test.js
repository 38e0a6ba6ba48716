// mqtt.js in MQTT 3.1, 3.1.1 and 5: connecting, all qualities of service, sessions, wills, and what MQTT 5 has.
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const net = require('node:net');
const { afterEach, describe, test } = require('node:test');
const mqtt = require('mqtt');

const URL_TEXT = process.env.MQTT_URL || 'mqtt://guest:guest@127.0.0.1:5672';
const PEER = process.env.DRAGOMAN_PEER === 'mosquitto';
const DEADLINE = 20000; // ms, a guard against hanging only
const VERSIONS = [
  ['3.1', { protocolId: 'MQIsdp', protocolVersion: 3 }],
  ['3.1.1', { protocolVersion: 4 }],
  ['5', { protocolVersion: 5 }],
];
const LARGE = Buffer.alloc(3 << 20, 'dragoman ');

const clients = [];
const servers = [];

const unique = (role) => `${role}-${randomBytes(5).toString('hex')}`;
const topicName = () => `js/${unique('topic')}`;

/** A client whose messages wait in a list until `next` takes them. */
async function connect(options = {}, url = URL_TEXT) {
  const client = await mqtt.connectAsync(url, { clientId: unique('js'), reconnectPeriod: 0, ...options }, false);
  clients.push(client);
  return listen(client);
}

function listen(client) {
  client.inbox = [];
  client.on('message', (topic, payload, packet) => client.inbox.push({ topic, payload, packet }));
  client.on('error', () => {});
  return client;
}

async function until(condition, what) {
  for (const end = Date.now() + DEADLINE; ; ) {
    const result = condition();
    if (result) return result;
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function next(client) {
  await until(() => client.inbox.length, 'a message');
  return client.inbox.shift();
}

/** All that has come before a message that `publisher` publishes for this. */
async function all(client, publisher = client) {
  const mark = topicName();
  await client.subscribeAsync(mark, { qos: 1 });
  await publisher.publishAsync(mark, '', { qos: 1 });
  const found = [];
  for (let each; (each = await next(client)).topic !== mark; ) found.push(each);
  await client.unsubscribeAsync(mark);
  return found;
}

const payloads = (found) => found.map((each) => each.payload.toString());
const closed = (client) => until(() => !client.connected, 'the end of the connection');
const kept = (version, clientId) => ({
  clientId,
  clean: false,
  ...version,
  ...(version.protocolVersion === 5 ? { properties: { sessionExpiryInterval: 3600 } } : {}),
});

/** A network between client and broker: `cut` drops all its connections. */
async function proxy() {
  const target = new URL(URL_TEXT);
  const sockets = new Set();
  const server = net.createServer((inner) => {
    const outer = net.connect(Number(target.port), target.hostname);
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
  servers.push(server);
  const url = new URL(URL_TEXT);
  url.host = `127.0.0.1:${server.address().port}`;
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return { url: url.toString(), cut };
}

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.endAsync(true)));
  servers.splice(0).forEach((server) => server.close());
});

for (const [name, version] of VERSIONS) {
  describe(`MQTT ${name}`, () => {
    test('every quality of service, both ways', async () => {
      const publisher = await connect(version);
      const subscriber = await connect(version);
      const topic = topicName();
      for (const published of [0, 1, 2]) {
        for (const subscribed of [0, 1, 2]) {
          const [granted] = await subscriber.subscribeAsync(topic, { qos: subscribed });
          assert.equal(granted.qos, subscribed);
          await publisher.publishAsync(topic, 'm', { qos: published });
          const got = await next(subscriber);
          assert.equal(got.packet.qos, Math.min(published, subscribed));
          assert.equal(got.packet.retain || got.packet.dup, false);
        }
      }
      assert.deepEqual(await all(subscriber, publisher), []);
    });

    test('wildcards, and unsubscribing', async () => {
      const client = await connect(version);
      const topic = topicName();
      await client.subscribeAsync(`${topic}/+/x/#`, { qos: 1 });
      for (const each of ['a/x', 'a/x/y/z', 'a/y', 'x', 'a/b/x']) {
        await client.publishAsync(`${topic}/${each}`, each, { qos: 1 });
      }
      assert.deepEqual(payloads(await all(client)), ['a/x', 'a/x/y/z']);
      await client.unsubscribeAsync(`${topic}/+/x/#`);
      await client.publishAsync(`${topic}/a/x`, 'm', { qos: 1 });
      assert.deepEqual(await all(client), []);
    });

    test('a large payload, an empty one, and bytes of any kind', async () => {
      const client = await connect(version);
      const topic = topicName();
      await client.subscribeAsync(topic, { qos: 2 });
      for (const payload of [LARGE, Buffer.alloc(0), Buffer.from(Array.from(Array(256).keys()))]) {
        await client.publishAsync(topic, payload, { qos: 2 });
        assert.ok((await next(client)).payload.equals(payload));
      }
    });

    test('five hundred at once arrive in their order', async () => {
      const publisher = await connect(version);
      const subscriber = await connect(version);
      const topic = topicName();
      await subscriber.subscribeAsync(topic, { qos: 1 });
      const numbers = Array.from(Array(500).keys()).map(String);
      await Promise.all(numbers.map((number) => publisher.publishAsync(topic, number, { qos: 1 })));
      assert.deepEqual(payloads(await all(subscriber, publisher)), numbers);
    });

    test('retained messages', async () => {
      const client = await connect(version);
      const topic = topicName();
      for (const payload of ['old', 'new']) await client.publishAsync(topic, payload, { qos: 1, retain: true });
      await client.subscribeAsync(topic, { qos: 1 });
      const got = await next(client);
      assert.deepEqual([got.payload.toString(), got.packet.retain], ['new', true]);
      await client.publishAsync(topic, '', { qos: 1, retain: true });
      await next(client);
      const late = await connect(version);
      await late.subscribeAsync(topic);
      assert.deepEqual(await all(late), []);
    });

    test('a will', async () => {
      const watcher = await connect(version);
      const topic = topicName();
      await watcher.subscribeAsync(topic, { qos: 1 });
      const lost = await connect({ ...version, will: { topic, payload: Buffer.from('lost'), qos: 1, retain: false } });
      lost.stream.destroy();
      assert.equal((await next(watcher)).payload.toString(), 'lost');
      const polite = await connect({ ...version, will: { topic, payload: Buffer.from('no'), qos: 1, retain: false } });
      await polite.endAsync();
      assert.deepEqual(await all(watcher), []);
    });

    test('a session waits for its client', async () => {
      const clientId = unique('js');
      const topic = topicName();
      const first = await connect(kept(version, clientId));
      await first.subscribeAsync(topic, { qos: 2 });
      await first.endAsync();
      const publisher = await connect(version);
      for (const payload of ['1', '2', '3']) await publisher.publishAsync(topic, payload, { qos: 2 });
      const client = listen(mqtt.connect(URL_TEXT, { reconnectPeriod: 0, ...kept(version, clientId) }));
      clients.push(client);
      const session = new Promise((resolve) => client.once('connect', resolve));
      if (version.protocolVersion > 3) assert.equal((await session).sessionPresent, true);
      assert.deepEqual([(await next(client)), (await next(client)), (await next(client))].map((each) =>
        each.payload.toString()), ['1', '2', '3']);
    });

    test('a network that breaks: exactly once', async () => {
      const network = await proxy();
      const topic = topicName();
      const again = { reconnectPeriod: 20 };
      const subscriber = await connect({ ...kept(version, unique('js')), ...again }, network.url);
      await subscriber.subscribeAsync(topic, { qos: 2 });
      const publisher = await connect({ ...kept(version, unique('js')), ...again }, network.url);
      const numbers = Array.from(Array(100).keys()).map(String);
      const publishing = numbers.map((number) => publisher.publishAsync(topic, number, { qos: 2 }));
      for (const at of [10, 60]) {
        await until(() => subscriber.inbox.length > at, `${at} messages`);
        const back = [subscriber, publisher].map((each) => new Promise((resolve) => each.once('connect', resolve)));
        network.cut();
        await Promise.all(back);
      }
      await Promise.all(publishing);
      await until(() => subscriber.inbox.length >= 100, 'a hundred messages');
      assert.deepEqual(payloads(subscriber.inbox).sort((a, b) => a - b), numbers);
      assert.deepEqual(payloads(await all(subscriber, publisher)).length, 100);
    });

    test('one client of a name at a time', async () => {
      const clientId = unique('js');
      const first = await connect({ ...version, clientId });
      const told = new Promise((resolve) => first.once('disconnect', resolve));
      const second = await connect({ ...version, clientId });
      await closed(first);
      if (version.protocolVersion === 5 && !PEER) assert.equal((await told).reasonCode, 0x8e);
      assert.ok(second.connected);
    });

    test('a wrong password', async () => {
      const url = new URL(URL_TEXT);
      url.password = 'wrong';
      const codes = version.protocolVersion === 5 ? [0x86, 0x87] : [4, 5];
      await assert.rejects(connect(version, url.toString()), (error) => codes.includes(error.code));
    });
  });
}

describe('only MQTT 5', () => {
  const version = { protocolVersion: 5 };

  test('all properties of a message', async () => {
    const client = await connect(version);
    const topic = topicName();
    await client.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 7 } });
    const properties = {
      payloadFormatIndicator: true, messageExpiryInterval: 100, contentType: 'text/plain', responseTopic: 'a/b',
      correlationData: Buffer.from([0, 255]), userProperties: { a: ['1', '2'], b: '3' },
    };
    await client.publishAsync(topic, 'm', { qos: 1, properties });
    const got = (await next(client)).packet.properties;
    assert.ok(got.messageExpiryInterval <= 100);
    assert.deepEqual({ ...got, userProperties: { ...got.userProperties }, messageExpiryInterval: 100 },
      { ...properties, subscriptionIdentifier: 7 });
  });

  test('no local, retain as published, retain handling', async () => {
    const client = await connect(version);
    const topic = topicName();
    await client.publishAsync(topic, 'kept', { qos: 1, retain: true });
    await client.subscribeAsync(topic, { qos: 1, rh: 2, nl: true, rap: true });
    await client.publishAsync(topic, 'mine', { qos: 1, retain: true });
    await (await connect(version)).publishAsync(topic, 'other', { qos: 1, retain: true });
    assert.deepEqual((await all(client)).map((each) => [each.payload.toString(), each.packet.retain]),
      [['other', true]]);
  });

  test('topic aliases both ways, which mqtt.js assigns and resolves by itself', async () => {
    const publisher = await connect({ ...version, autoAssignTopicAlias: true });
    const subscriber = await connect({ ...version, properties: { topicAliasMaximum: 3 } });
    const topic = topicName();
    await subscriber.subscribeAsync(`${topic}/#`, { qos: 1 });
    const expected = Array.from(Array(30).keys()).map((number) => `${topic}/${number % 5}`);
    for (const each of expected) await publisher.publishAsync(each, 'm', { qos: 1 });
    assert.deepEqual((await all(subscriber, publisher)).map((each) => each.topic), expected);
  });

  test('a shared subscription', async () => {
    const topic = topicName();
    const members = await Promise.all([connect(version), connect(version)]);
    for (const each of members) await each.subscribeAsync(`$share/group/${topic}`, { qos: 1 });
    const publisher = await connect(version);
    const numbers = Array.from(Array(40).keys()).map(String);
    for (const number of numbers) await publisher.publishAsync(topic, number, { qos: 1 });
    const shares = [payloads(await all(members[0], publisher)), payloads(await all(members[1], publisher))];
    assert.ok(shares[0].length && shares[1].length);
    assert.deepEqual(shares.flat().sort((a, b) => a - b), numbers);
  });

  test('receive maximum and maximum packet size of a client', async () => {
    const client = await connect({ ...version, properties: { receiveMaximum: 3, maximumPacketSize: 500 } });
    const publisher = await connect(version);
    const topic = topicName();
    await client.subscribeAsync(topic, { qos: 1 });
    for (const size of [10, 1000, 20, 30, 40, 50]) await publisher.publishAsync(topic, 'x'.repeat(size), { qos: 1 });
    assert.deepEqual((await all(client, publisher)).map((each) => each.payload.length), [10, 20, 30, 40, 50]);
  });

  test('a will that waits is taken back', async () => {
    const clientId = unique('js');
    const topic = topicName();
    const watcher = await connect(version);
    await watcher.subscribeAsync(topic, { qos: 1 });
    const will = { topic, payload: Buffer.from('w'), qos: 1, retain: false, properties: { willDelayInterval: 60 } };
    const first = await connect({ ...kept(version, clientId), will });
    first.stream.destroy();
    await closed(first);
    await connect(kept(version, clientId));
    assert.deepEqual(await all(watcher), []);
  });

  test('an assigned client identifier', async () => {
    const client = listen(mqtt.connect(URL_TEXT, { ...version, clientId: '', reconnectPeriod: 0 }));
    clients.push(client);
    const connack = await new Promise((resolve) => client.once('connect', resolve));
    assert.ok(connack.properties.assignedClientIdentifier);
  });
});
