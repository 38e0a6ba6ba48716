// amqplib's callback API: the same broker through its other face, each call with its callback.
'use strict';

const assert = require('node:assert/strict');
const { promisify } = require('node:util');
const { after, before, test } = require('node:test');
const amqp = require('amqplib/callback_api');
const { URL_TEXT, LARGE_BODY, name, withCredentials, until, event } = require('./support.js');

let connection;

/** Call a method that takes a callback last, and give its result as a promise. */
function call(target, method, ...args) {
  return promisify(target[method].bind(target))(...args);
}

async function openChannel() {
  const channel = await new Promise((resolve, reject) => {
    connection.createChannel((error, made) => (error ? reject(error) : resolve(made)));
  });
  channel.on('error', () => {});
  return channel;
}

before(async () => {
  connection = await promisify(amqp.connect)(URL_TEXT);
});

after(() => call(connection, 'close'));

test('a refused login', (t, done) => {
  amqp.connect(withCredentials('guest', 'wrong'), (error, made) => {
    assert.match(error.message, /ACCESS.REFUSED/);
    assert.equal(made, undefined);
    done();
  });
});

test('exchanges, queues and bindings', async () => {
  const channel = await openChannel();
  const [source, end, queue] = [name('exchange'), name('exchange'), name('queue')];
  for (const exchange of [source, end]) {
    assert.deepEqual(await call(channel, 'assertExchange', exchange, 'topic', { durable: false }), { exchange });
  }
  await call(channel, 'checkExchange', source);
  assert.equal((await call(channel, 'assertQueue', queue, { exclusive: true })).queue, queue);
  await call(channel, 'bindExchange', end, source, 'a.#', {});
  await call(channel, 'bindQueue', queue, end, 'a.*', {});
  channel.publish(source, 'a.b', LARGE_BODY, { headers: { n: 1 }, persistent: true });
  const message = await until(() => call(channel, 'get', queue, {}), 'the message');
  assert.ok(message.content.equals(LARGE_BODY));
  assert.deepEqual([message.properties.headers, message.properties.deliveryMode], [{ n: 1 }, 2]);
  channel.ack(message);
  assert.equal(await call(channel, 'get', queue, { noAck: true }), false);
  await call(channel, 'unbindQueue', queue, end, 'a.*', {});
  await call(channel, 'unbindExchange', end, source, 'a.#', {});
  assert.equal((await call(channel, 'checkQueue', queue)).messageCount, 0);
  assert.deepEqual(await call(channel, 'purgeQueue', queue), { messageCount: 0 });
  assert.deepEqual(await call(channel, 'deleteQueue', queue, {}), { messageCount: 0 });
  for (const exchange of [end, source]) await call(channel, 'deleteExchange', exchange, { ifUnused: true });
  await call(channel, 'close');
});

test('errors come to the callback, and close the channel', async () => {
  const channel = await openChannel();
  const closed = event(channel, 'close');
  await assert.rejects(call(channel, 'checkQueue', 'no-such-queue'), (error) => error.code === 404);
  await closed;
  await assert.rejects(async () => call(channel, 'checkExchange', 'amq.direct'), /[Cc]losed/);
});

test('consuming, and outcomes', async () => {
  const channel = await openChannel();
  const { queue } = await call(channel, 'assertQueue', '', { exclusive: true });
  await call(channel, 'prefetch', 2, false);
  const seen = [];
  const ok = await call(channel, 'consume', queue, (message) => {
    if (message === null) return;
    const body = message.content.toString();
    seen.push([body, message.fields.redelivered]);
    if (body === 'nack' && !message.fields.redelivered) channel.nack(message, false, true);
    else if (body === 'reject') channel.reject(message, false);
    else channel.ack(message);
  }, { consumerTag: 'mine' });
  assert.deepEqual(ok, { consumerTag: 'mine' });
  for (const body of ['ack', 'nack', 'reject']) channel.sendToQueue(queue, Buffer.from(body));
  await until(() => seen.length === 4, 'the redelivery');
  assert.deepEqual(seen.sort(), [['ack', false], ['nack', false], ['nack', true], ['reject', false]]);
  await call(channel, 'cancel', 'mine');
  channel.sendToQueue(queue, Buffer.from('held'));
  await until(() => call(channel, 'get', queue, {}), 'the message');
  await call(channel, 'recover');
  const again = await until(() => call(channel, 'get', queue, {}), 'the message again');
  assert.equal(again.fields.redelivered, true);
  channel.nackAll(false);
  channel.ackAll();
  await call(channel, 'close');
});

test('confirms by callback', async () => {
  const channel = await new Promise((resolve, reject) => {
    connection.createConfirmChannel((error, made) => (error ? reject(error) : resolve(made)));
  });
  const { queue } = await call(channel, 'assertQueue', '', {
    exclusive: true, maxLength: 5, overflow: 'reject-publish' });
  const outcomes = [];
  for (let number = 0; number < 7; number++) {
    channel.sendToQueue(queue, Buffer.from(`${number}`), {}, (error) => outcomes.push(error === null));
  }
  await until(() => outcomes.length === 7, 'all confirms');
  assert.deepEqual(outcomes, [true, true, true, true, true, false, false]);
  await call(channel, 'purgeQueue', queue);
  channel.publish('', queue, Buffer.from('x'));
  await call(channel, 'waitForConfirms');
  await call(channel, 'close');
});

test('returns', async () => {
  const channel = await openChannel();
  const returned = event(channel, 'return');
  channel.sendToQueue('no-such-queue', Buffer.from('back'), { mandatory: true });
  const [message] = await returned;
  assert.deepEqual([message.fields.replyCode, message.content.toString()], [312, 'back']);
  await call(channel, 'close');
});

test('a new secret', () => call(connection, 'updateSecret', Buffer.from('guest'), 'rotation'));
