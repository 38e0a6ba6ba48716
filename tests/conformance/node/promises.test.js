// amqplib's promise API: connections, declarations, publishing, consuming, confirms, recovery.
'use strict';

const assert = require('node:assert/strict');
const { after, afterEach, before, beforeEach, describe, test } = require('node:test');
const amqp = require('amqplib');
const { URL_TEXT, LARGE_BODY, name, withCredentials, until, event, proxy } = require('./support.js');

let connection;
let channel;
let queues = [];
let exchanges = [];

function queueName() {
  queues.push(name('queue'));
  return queues.at(-1);
}

function exchangeName() {
  exchanges.push(name('exchange'));
  return exchanges.at(-1);
}

/** A channel that is expected to be closed by the broker. */
async function doomed() {
  const made = await connection.createChannel();
  made.on('error', () => {});
  return made;
}

async function refused(code, call) {
  const made = await doomed();
  await assert.rejects(call(made), (error) => {
    assert.equal(error.code, code, error.message);
    return true;
  });
}

async function drain(queue) {
  const found = [];
  for (let message; (message = await channel.get(queue, { noAck: true })); ) found.push(message.content.toString());
  return found;
}

before(async () => {
  connection = await amqp.connect(URL_TEXT, { noDelay: true });
});

after(() => connection.close());

beforeEach(async () => {
  channel = await connection.createChannel();
});

afterEach(async () => {
  await channel.close().catch(() => {}); // first, so that no consumer is told of its queue's end
  const cleaner = await connection.createChannel();
  for (const queue of queues) await cleaner.deleteQueue(queue);
  for (const exchange of exchanges) await cleaner.deleteExchange(exchange);
  queues = [];
  exchanges = [];
  await cleaner.close();
});

describe('connecting', () => {
  test('what the broker says of itself', () => {
    const { serverProperties } = connection.connection;
    assert.ok(serverProperties.product && serverProperties.version);
    for (const each of ['publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify',
      'connection.blocked', 'authentication_failure_close', 'per_consumer_qos', 'consumer_priorities']) {
      assert.equal(serverProperties.capabilities[each], true, each);
    }
  });

  test('options in the address', async () => {
    const own = await amqp.connect(`${URL_TEXT}?heartbeat=5&channelMax=10&frameMax=8192&locale=en_US`);
    assert.equal(own.connection.heartbeat, 5);
    assert.equal(own.connection.channelMax, 10);
    assert.equal(own.connection.frameMax, 8192);
    const one = await own.createChannel();
    const { queue } = await one.assertQueue('', { exclusive: true });
    one.sendToQueue(queue, LARGE_BODY);
    const message = await until(() => one.get(queue, { noAck: true }), 'the message');
    assert.ok(message.content.equals(LARGE_BODY));
    await own.close();
  });

  test('an address as an object, AMQPLAIN, client properties', async () => {
    const { hostname, port } = new URL(URL_TEXT);
    const address = { protocol: 'amqp', hostname, port: Number(port || 5672), vhost: '/', heartbeat: 0 };
    const own = await amqp.connect(address, {
      credentials: amqp.credentials.amqplain('guest', 'guest'),
      clientProperties: { connection_name: 'conformance' }, noDelay: true, keepAlive: true,
    });
    await (await own.createChannel()).close();
    await own.close();
  });

  test('a refused login', async () => {
    await assert.rejects(amqp.connect(withCredentials('guest', 'wrong')), /ACCESS.REFUSED/);
    await assert.rejects(amqp.connect(withCredentials('nobody', 'guest')), /ACCESS.REFUSED/);
  });

  test('an unknown virtual host', async () => {
    const url = new URL(URL_TEXT);
    url.pathname = '/no-such-host';
    await assert.rejects(amqp.connect(url.toString()), /ConnectionClose/); // the client says no more than that
  });

  test('no common mechanism', async () => {
    const credentials = { mechanism: 'STRANGE', response: () => Buffer.from('') };
    await assert.rejects(amqp.connect(URL_TEXT, { credentials }));
  });

  test('a new secret', async () => {
    const told = event(connection, 'update-secret-ok');
    await connection.updateSecret(Buffer.from('guest'), 'rotation');
    await told;
  });

  test('many channels', async () => {
    const own = await amqp.connect(URL_TEXT);
    const channels = await Promise.all(Array.from({ length: 300 }, () => own.createChannel()));
    const { queue } = await channels[0].assertQueue('', { exclusive: true });
    channels.forEach((each, number) => each.sendToQueue(queue, Buffer.from(String(number))));
    await until(async () => (await channels[0].checkQueue(queue)).messageCount === 300, 'all messages');
    await own.close();
  });

  test('a mistake that ends the connection', async () => {
    const own = await amqp.connect(URL_TEXT);
    const failed = event(own, 'error');
    const closed = event(own, 'close');
    const made = await own.createChannel();
    made.on('error', () => {});
    await assert.rejects(made.assertExchange(name('exchange'), 'no-such-type'));
    assert.equal((await failed)[0].code, 503);
    await closed;
  });
});

describe('declaring', () => {
  for (const type of ['direct', 'fanout', 'topic', 'headers', 'x-consistent-hash']) {
    for (const options of [{ durable: true }, { durable: false, autoDelete: true }, { internal: true }]) {
      test(`an exchange: ${type} ${JSON.stringify(options)}`, async () => {
        const exchange = exchangeName();
        assert.deepEqual(await channel.assertExchange(exchange, type, options), { exchange });
        await channel.assertExchange(exchange, type, options);
        await channel.checkExchange(exchange);
        await refused(406, (c) => c.assertExchange(exchange, type, { ...options, autoDelete: !options.autoDelete }));
        await channel.deleteExchange(exchange, { ifUnused: true });
        await refused(404, (c) => c.checkExchange(exchange));
      });
    }
  }

  test('a queue with every option', async () => {
    const queue = queueName();
    const options = {
      durable: true, expires: 600000, messageTtl: 60000, deadLetterExchange: '', deadLetterRoutingKey: 'dead',
      maxLength: 100, maxPriority: 5, overflow: 'drop-head', queueMode: 'lazy',
      arguments: { 'x-max-length-bytes': 100000, 'x-unheard-of': { nested: [1] } },
    };
    const ok = await channel.assertQueue(queue, options);
    assert.deepEqual(ok, { queue, messageCount: 0, consumerCount: 0 });
    await channel.assertQueue(queue, options);
    await refused(406, (c) => c.assertQueue(queue, { ...options, messageTtl: 1 }));
    await refused(406, (c) => c.assertQueue(queue, { ...options, durable: false }));
    await refused(406, (c) => c.assertQueue(queueName(), { maxLength: -1 }));
    await refused(403, (c) => c.assertQueue('amq.mine'));
  });

  test('the life of a queue', async () => {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    assert.match(queue, /^amq\.gen-/);
    await channel.bindQueue(queue, 'amq.topic', 'some.#', { note: 1 });
    channel.publish('amq.topic', `some.${queue}`, Buffer.from('x'));
    await until(async () => (await channel.checkQueue(queue)).messageCount === 1, 'the message');
    await refused(406, (c) => c.deleteQueue(queue, { ifEmpty: true }));
    assert.deepEqual(await channel.purgeQueue(queue), { messageCount: 1 });
    await channel.unbindQueue(queue, 'amq.topic', 'some.#', { note: 1 });
    const other = await amqp.connect(URL_TEXT);
    const stranger = await other.createChannel();
    stranger.on('error', () => {});
    await assert.rejects(stranger.checkQueue(queue), (error) => error.code === 405);
    await other.close();
    assert.deepEqual(await channel.deleteQueue(queue, { ifUnused: true, ifEmpty: true }), { messageCount: 0 });
    assert.deepEqual(await channel.deleteQueue(queue), { messageCount: 0 });
    await refused(404, (c) => c.checkQueue(queue));
    await refused(404, (c) => c.bindQueue('no-such-queue', 'amq.direct', ''));
    await refused(404, (c) => c.consume('no-such-queue', () => {}));
  });

  test('an auto-delete queue', async () => {
    const { queue } = await channel.assertQueue(queueName(), { autoDelete: true });
    const { consumerTag } = await channel.consume(queue, () => {});
    await channel.cancel(consumerTag);
    await refused(404, (c) => c.checkQueue(queue));
  });

  test('exchanges bound to exchanges, and an alternate', async () => {
    const [source, end, alternate] = [exchangeName(), exchangeName(), exchangeName()];
    await channel.assertExchange(alternate, 'fanout');
    await channel.assertExchange(source, 'topic', { alternateExchange: alternate });
    await channel.assertExchange(end, 'direct');
    const [known, rest] = [queueName(), queueName()];
    await channel.assertQueue(known);
    await channel.assertQueue(rest);
    await channel.bindExchange(end, source, 'a.*', {});
    await channel.bindQueue(known, end, 'a.b');
    await channel.bindQueue(rest, alternate, '');
    channel.publish(source, 'a.b', Buffer.from('known'));
    channel.publish(source, 'other', Buffer.from('rest'));
    await until(async () => (await channel.checkQueue(rest)).messageCount, 'the second message');
    assert.deepEqual([await drain(known), await drain(rest)], [['known'], ['rest']]);
    await channel.unbindExchange(end, source, 'a.*', {});
    channel.publish(source, 'a.b', Buffer.from('now unknown'));
    assert.equal((await until(() => channel.get(rest, { noAck: true }), 'it')).content.toString(), 'now unknown');
  });

  test('a headers exchange', async () => {
    const [exchange, all, any] = [exchangeName(), queueName(), queueName()];
    await channel.assertExchange(exchange, 'headers');
    for (const [queue, match] of [[all, 'all'], [any, 'any']]) {
      await channel.assertQueue(queue);
      await channel.bindQueue(queue, exchange, '', { 'x-match': match, a: 1, b: 'two' });
    }
    channel.publish(exchange, '', Buffer.from('both'), { headers: { a: 1, b: 'two', c: 3 } });
    channel.publish(exchange, '', Buffer.from('one'), { headers: { b: 'two' } });
    channel.publish(exchange, '', Buffer.from('none'), { headers: { a: '1' } });
    await until(async () => (await channel.checkQueue(any)).messageCount === 2, 'the messages');
    assert.deepEqual([await drain(all), await drain(any)], [['both'], ['both', 'one']]);
  });
});

describe('messages', () => {
  const HEADERS = {
    string: 'grüße', empty: '', true: true, false: false, null: null, buffer: Buffer.from([0, 255, 254]),
    int8: -128, int16: -32768, int32: -2147483648, int64: -(2 ** 50), double: 0.1, far: 2 ** 53,
    list: [1, 'two', [null, { three: 3 }]], table: { deep: { deeper: [true] } },
  };
  const TAGGED = {
    timestamp: { '!': 'timestamp', value: 1700000000 }, decimal: { '!': 'decimal', value: { digits: 314, places: 2 } },
    float: { '!': 'float', value: 0.5 }, uint8: { '!': 'uint8', value: 200 }, uint16: { '!': 'uint16', value: 60000 },
    uint32: { '!': 'uint32', value: 4000000000 }, long: { '!': 'int64', value: 5 },
  };

  test('all properties and types of headers', async () => {
    const queue = queueName();
    await channel.assertQueue(queue);
    const properties = {
      contentType: 'application/json', contentEncoding: 'utf-8', deliveryMode: 2, priority: 9,
      correlationId: 'correlation', replyTo: 'reply', expiration: '3600000', messageId: 'id', timestamp: 1700000000,
      type: 'kind', userId: 'guest', appId: 'app', headers: { ...HEADERS, ...TAGGED },
    };
    channel.sendToQueue(queue, Buffer.from('x'), properties);
    const message = await until(() => channel.get(queue), 'the message');
    assert.deepEqual(message.fields, {
      deliveryTag: 1, redelivered: false, exchange: '', routingKey: queue, messageCount: 0,
    });
    const { headers, ...rest } = message.properties;
    const { headers: _headers, ...expected } = properties;
    assert.deepEqual(rest, { ...expected, clusterId: undefined });
    for (const [key, value] of Object.entries(HEADERS)) assert.deepEqual(headers[key], value, key);
    assert.deepEqual(headers.timestamp, TAGGED.timestamp);
    assert.deepEqual(headers.decimal, TAGGED.decimal);
    assert.deepEqual([headers.float, headers.uint8, headers.uint16, headers.uint32, headers.long],
      [0.5, 200, 60000, 4000000000, 5]);
    // Published again as it came, it comes again as it was.
    channel.sendToQueue(queue, message.content, message.properties);
    const again = await until(() => channel.get(queue, { noAck: true }), 'the copy');
    assert.deepEqual(again.properties, message.properties);
    channel.ack(message);
  });

  test('CC and BCC', async () => {
    const [to, cc, bcc] = [queueName(), queueName(), queueName()];
    for (const queue of [to, cc, bcc]) await channel.assertQueue(queue);
    channel.sendToQueue(to, Buffer.from('x'), { CC: cc, BCC: [bcc] });
    for (const queue of [to, cc, bcc]) {
      const message = await until(() => channel.get(queue, { noAck: true }), 'the copy');
      assert.deepEqual(message.properties.headers, { CC: [cc] });
    }
  });

  for (const size of [0, 1, 131064, 131065, LARGE_BODY.length]) {
    test(`a body of ${size} bytes`, async () => {
      const queue = queueName();
      await channel.assertQueue(queue);
      channel.sendToQueue(queue, LARGE_BODY.subarray(0, size));
      const message = await until(() => channel.get(queue, { noAck: true }), 'the message');
      assert.ok(message.content.equals(LARGE_BODY.subarray(0, size)));
    });
  }

  test('expiry and dead letters', async () => {
    const [queue, dead] = [queueName(), queueName()];
    await channel.assertQueue(dead);
    await channel.assertQueue(queue, { deadLetterExchange: '', deadLetterRoutingKey: dead });
    channel.sendToQueue(queue, Buffer.from('expired'), { expiration: 1 });
    const expired = await until(() => channel.get(dead, { noAck: true }), 'the dead letter');
    const [death] = expired.properties.headers['x-death'];
    assert.deepEqual([death.reason, death.queue, death.count, death['original-expiration'], death['routing-keys']],
      ['expired', queue, 1, '1', [queue]]);
    assert.equal(expired.properties.expiration, undefined);
    channel.sendToQueue(queue, Buffer.from('rejected'));
    channel.reject(await until(() => channel.get(queue), 'the message'), false);
    const rejected = await until(() => channel.get(dead, { noAck: true }), 'the dead letter');
    assert.equal(rejected.properties.headers['x-first-death-reason'], 'rejected');
  });

  test('priorities', async () => {
    const queue = queueName();
    await channel.assertQueue(queue, { maxPriority: 3 });
    [0, 3, 1, 2, 3].forEach((priority, at) => channel.sendToQueue(queue, Buffer.from(`${at}`), { priority }));
    await until(async () => (await channel.checkQueue(queue)).messageCount === 5, 'the messages');
    assert.deepEqual(await drain(queue), ['1', '4', '3', '2', '0']);
  });
});

describe('publishing', () => {
  test('confirms', async () => {
    const queue = queueName();
    const confirming = await connection.createConfirmChannel();
    await confirming.assertQueue(queue, { maxLength: 95, overflow: 'reject-publish' });
    const outcomes = await Promise.all(Array.from({ length: 100 }, (_, number) => new Promise((resolve) => {
      confirming.sendToQueue(queue, Buffer.from(`${number}`), { persistent: number % 2 === 0 },
        (error) => resolve(error === null));
    })));
    assert.deepEqual(outcomes, Array.from({ length: 100 }, (_, number) => number < 95));
    assert.equal((await confirming.checkQueue(queue)).messageCount, 95);
    confirming.sendToQueue(queue, Buffer.from('one too many'));
    await assert.rejects(confirming.waitForConfirms());
    await confirming.purgeQueue(queue);
    for (let number = 0; number < 10; number++) confirming.publish('', queue, Buffer.from('x'), { mandatory: true });
    await confirming.waitForConfirms();
    await confirming.close();
  });

  test('returns', async () => {
    const returned = event(channel, 'return');
    channel.publish('amq.direct', 'nowhere', Buffer.from('back'), { mandatory: true, messageId: '7' });
    const [message] = await returned;
    assert.deepEqual([message.fields.replyCode, message.fields.replyText, message.fields.exchange,
      message.fields.routingKey], [312, 'NO_ROUTE', 'amq.direct', 'nowhere']);
    assert.deepEqual([message.content.toString(), message.properties.messageId], ['back', '7']);
  });

  test('to an exchange that is not there', async () => {
    const made = await connection.createChannel();
    const failed = event(made, 'error');
    const closed = event(made, 'close');
    made.publish('no-such-exchange', '', Buffer.from('x'));
    assert.equal((await failed)[0].code, 404);
    await closed;
  });
});

describe('consuming', () => {
  test('acknowledgements of all kinds', async () => {
    const queue = queueName();
    await channel.assertQueue(queue);
    for (const body of ['a', 'b', 'c', 'd', 'e', 'f']) channel.sendToQueue(queue, Buffer.from(body));
    await until(async () => (await channel.checkQueue(queue)).messageCount === 6, 'the messages');
    const got = [];
    for (let number = 0; number < 6; number++) got.push(await channel.get(queue));
    channel.ack(got[1], true); // a and b
    channel.nack(got[2], false, false); // c is dropped
    channel.nack(got[3]); // d comes again
    channel.reject(got[4], true); // and e
    await until(async () => (await channel.checkQueue(queue)).messageCount === 2, 'the requeueing');
    const again = [await channel.get(queue), await channel.get(queue)];
    assert.deepEqual(again.map((m) => [m.content.toString(), m.fields.redelivered]), [['d', true], ['e', true]]);
    assert.equal(await channel.get(queue), false);
    channel.nackAll(true);
    await until(async () => (await channel.checkQueue(queue)).messageCount === 3, 'the requeueing');
    for (let number = 0; number < 3; number++) await channel.get(queue);
    await channel.recover();
    await until(async () => (await channel.checkQueue(queue)).messageCount === 3, 'the recovery');
    for (let number = 0; number < 3; number++) await channel.get(queue);
    channel.ackAll();
    await channel.checkQueue(queue);
    await channel.close();
    channel = await connection.createChannel();
    assert.equal((await channel.checkQueue(queue)).messageCount, 0);
  });

  test('prefetch of a consumer and of a channel', async () => {
    for (const shared of [false, true]) {
      const queue = queueName();
      const own = await connection.createChannel();
      await own.assertQueue(queue);
      for (let number = 0; number < 20; number++) own.sendToQueue(queue, Buffer.from('x'));
      await until(async () => (await own.checkQueue(queue)).messageCount === 20, 'the messages');
      await own.prefetch(3, shared);
      const received = [];
      for (let number = 0; number < 2; number++) await own.consume(queue, (message) => received.push(message));
      const expected = shared ? 3 : 6;
      await until(() => received.length >= expected, 'the prefetch');
      await own.checkQueue(queue);
      assert.equal(received.length, expected);
      own.ackAll();
      await until(() => received.length >= 2 * expected, 'the next ones');
      await own.close();
    }
  });

  test('tags, exclusivity, priorities', async () => {
    const queue = queueName();
    await channel.assertQueue(queue);
    const received = [];
    const note = (tag) => (message) => received.push([tag, message.fields.consumerTag]);
    await channel.prefetch(1);
    assert.deepEqual(await channel.consume(queue, note('low'), { consumerTag: 'low', priority: -1 }),
      { consumerTag: 'low' });
    await channel.consume(queue, note('high'), { consumerTag: 'high', arguments: { 'x-priority': 9 } });
    channel.sendToQueue(queue, Buffer.from('x'));
    channel.sendToQueue(queue, Buffer.from('x'));
    await until(() => received.length === 2, 'the deliveries');
    assert.deepEqual(received.sort(), [['high', 'high'], ['low', 'low']]);
    await refused(403, (c) => c.consume(queue, () => {}, { exclusive: true }));
    assert.deepEqual(await channel.cancel('low'), { consumerTag: 'low' });
  });

  test('a cancel by the broker', async () => {
    const queue = queueName();
    await channel.assertQueue(queue);
    const cancelled = new Promise((resolve) => channel.consume(queue, resolve, { noAck: true }));
    await until(async () => (await channel.checkQueue(queue)).consumerCount === 1, 'the consumer');
    await channel.deleteQueue(queue);
    assert.equal(await cancelled, null);
  });

  test('a request and its reply by the direct reply queue', async () => {
    const queue = queueName();
    await channel.assertQueue(queue);
    const server = await connection.createChannel();
    await server.consume(queue, (message) => {
      const answer = String(Number(message.content.toString()) * 2);
      server.sendToQueue(message.properties.replyTo, Buffer.from(answer),
        { correlationId: message.properties.correlationId });
    }, { noAck: true });
    const replies = [];
    await channel.consume('amq.rabbitmq.reply-to', (message) => replies.push(message), { noAck: true });
    for (let number = 0; number < 10; number++) {
      channel.sendToQueue(queue, Buffer.from(`${number}`),
        { correlationId: `${number}`, replyTo: 'amq.rabbitmq.reply-to' });
    }
    await until(() => replies.length === 10, 'the replies');
    assert.deepEqual(replies.map((m) => [m.properties.correlationId, m.content.toString()]),
      Array.from({ length: 10 }, (_, number) => [`${number}`, `${2 * number}`]));
    await server.close();
  });

  test('two thousand messages in order', async () => {
    const queue = queueName();
    await channel.assertQueue(queue, { durable: false });
    await channel.prefetch(100);
    const received = [];
    await channel.consume(queue, (message) => {
      received.push(Number(message.content.toString()));
      channel.ack(message);
    });
    const publisher = await connection.createConfirmChannel();
    for (let number = 0; number < 2000; number++) {
      if (!publisher.sendToQueue(queue, Buffer.from(`${number}`))) await event(publisher, 'drain');
    }
    await publisher.waitForConfirms();
    await until(() => received.length === 2000, 'all messages');
    assert.deepEqual(received, Array.from({ length: 2000 }, (_, number) => number));
    await publisher.close();
  });
});

describe('trouble', () => {
  test('heartbeats keep a silent connection', async () => {
    const own = await amqp.connect(`${URL_TEXT}?heartbeat=1`);
    await new Promise((resolve) => setTimeout(resolve, 3500));
    await (await own.createChannel()).close();
    await own.close();
  });

  test('a lost network is told', async () => {
    const network = await proxy();
    const own = await amqp.connect(network.url);
    own.on('error', () => {});
    const closed = event(own, 'close');
    const pending = own.createChannel();
    network.cut();
    await closed;
    await pending.then((late) => late.checkExchange('amq.direct')).then(() => assert.fail(), () => {});
    await network.close();
  });

  test('a connection that recovers', async () => {
    const network = await proxy();
    const queue = queueName();
    const received = [];
    const setup = async (model) => {
      const own = await model.createChannel();
      await own.assertQueue(queue);
      await own.consume(queue, (message) => received.push(message.content.toString()), { noAck: true });
    };
    const own = await amqp.connect(network.url, { recovery: { initialDelay: 20, maxDelay: 100, setup } });
    own.on('error', () => {});
    for (const round of ['1', '2', '3']) {
      channel.sendToQueue(queue, Buffer.from(round));
      await until(() => received.includes(round), `message ${round}`);
      if (round !== '3') {
        const back = event(own, 'connect');
        network.cut();
        await back;
      }
    }
    assert.deepEqual(received, ['1', '2', '3']);
    await own.close();
    await network.close();
  });
});
