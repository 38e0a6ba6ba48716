// rhea: AMQP 1.0 for Node. Types, addresses, outcomes, selectors, browsing, dynamic nodes, subscriptions, drain.
'use strict';

const assert = require('node:assert/strict');
const { after, before, describe, test } = require('node:test');
const { randomBytes } = require('node:crypto');
const rhea = require('rhea');
const { types, filter } = rhea;

const url = new URL(process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/');
const DEADLINE = 20000; // ms, a guard against hanging only

function once(emitter, kind) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${kind}`)), DEADLINE);
    emitter.once(kind, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
  });
}

function connect(options) {
  return rhea.create_container().connect({
    host: url.hostname, port: Number(url.port), username: url.username, password: url.password, reconnect: false,
    ...options });
}

describe('rhea', () => {
  let connection;
  before(async () => {
    connection = connect();
    await once(connection, 'connection_open');
  });
  after(async () => {
    connection.close();
    await once(connection, 'connection_close');
  });

  /** A queue of its own, and a receiver that gets messages one at a time. */
  async function queue(options) {
    const receiver = connection.open_receiver({ source: { dynamic: true }, credit_window: 0, autoaccept: false, ...options });
    await once(receiver, 'receiver_open');
    return { receiver, address: receiver.source.address };
  }

  async function send(address, message) {
    const sender = connection.open_sender({ target: address });
    await once(sender, 'sendable');
    sender.send(message);
    const { delivery } = await once(sender, 'settled');
    sender.close();
    return delivery;
  }

  async function next(receiver) {
    receiver.add_credit(1);
    return once(receiver, 'message');
  }

  /** Whether a receiver gets nothing: the broker says so, by using up its credit. */
  async function nothing(receiver) {
    receiver.drain = true;
    receiver.add_credit(1);
    await once(receiver, 'receiver_drained');
    return true;
  }

  describe('types', () => {
    const cases = {
      ubyte: types.wrap_ubyte(255), ushort: types.wrap_ushort(65535), uint: types.wrap_uint(4294967295),
      ulong: types.wrap_ulong(2 ** 53 - 1), byte: types.wrap_byte(-128), short: types.wrap_short(-32768),
      int: types.wrap_int(-2147483648), long: types.wrap_long(-(2 ** 53) + 1), float: types.wrap_float(1.5),
      double: types.wrap_double(-0.1), boolean: types.wrap_boolean(true), string: types.wrap_string('gr\u00fc\u00df'),
      symbol: types.wrap_symbol('symbol'), binary: types.wrap_binary(Buffer.from([0, 255])),
      timestamp: types.wrap_timestamp(-1000), uuid: types.wrap_uuid(Buffer.alloc(16, 7)), char: types.wrap_char(0x1f600),
    };
    for (const [name, value] of Object.entries(cases)) {
      test(name, async () => {
        const { receiver, address } = await queue();
        await send(address, { body: value, application_properties: name === 'binary' ? {} : { value } });
        const { message, delivery } = await next(receiver);
        delivery.accept();
        const plain = (found) => (Buffer.isBuffer(found) ? found.toString('hex') : found && found.valueOf());
        assert.deepEqual(plain(message.body), plain(value.value));
        receiver.close();
      });
    }

    test('lists, maps and sections', async () => {
      const { receiver, address } = await queue();
      const { data_section, sequence_section } = rhea.message;
      for (const body of [{ a: [1, 'two', null, { b: true }] }, [1, [2, [3]]], data_section(Buffer.from('data'))]) {
        await send(address, { body });
        const { message, delivery } = await next(receiver);
        assert.deepEqual(message.body.content ?? message.body, body.content ?? body);
        delivery.accept();
      }
      await send(address, { body: sequence_section([1, 'a']) });
      const { message, delivery } = await next(receiver);
      assert.deepEqual(message.body.content, [1, 'a']);
      delivery.accept();
      receiver.close();
    });

    test('properties and annotations', async () => {
      const { receiver, address } = await queue();
      const sent = {
        message_id: 'id', user_id: Buffer.from(url.username), to: 'to', subject: 'subject', reply_to: 'reply',
        correlation_id: types.wrap_ulong(7), content_type: 'a/b', content_encoding: 'gzip', group_id: 'group',
        group_sequence: 4294967295, reply_to_group_id: 'other', priority: 9, durable: true, ttl: 60000,
        creation_time: new Date(1500000000123), absolute_expiry_time: new Date(4100000000000),
        message_annotations: { 'x-opt-a': 'b' }, application_properties: { key: 'value' }, body: 'body' };
      await send(address, sent);
      const { message, delivery } = await next(receiver);
      delivery.accept();
      for (const name of ['message_id', 'to', 'subject', 'reply_to', 'content_type', 'content_encoding', 'group_id',
        'group_sequence', 'reply_to_group_id', 'priority', 'durable', 'body']) {
        assert.equal(message[name], sent[name], name);
      }
      assert.equal(Number(message.correlation_id), 7);
      assert.equal(message.user_id.toString(), url.username);
      assert.equal(Number(message.creation_time), 1500000000123);
      assert.equal(message.message_annotations['x-opt-a'], 'b');
      assert.equal(message.application_properties.key, 'value');
      assert.ok(message.ttl > 0 && message.ttl <= 60000);
      receiver.close();
    });
  });

  test('addresses, those of RabbitMQ 3 and 4 among them', async () => {
    const { receiver, address } = await queue();
    for (const to of [address, `/queues/${address}`, `/amq/queue/${address}`, `/queue/${address}`,
      `/exchanges/amq.direct/none`]) {
      const delivery = await send(to, { body: to });
      if (to.endsWith('none')) {
        assert.ok(rhea.message.is_rejected(delivery.remote_state), 'rejected');
        continue;
      }
      const got = await next(receiver);
      assert.equal(got.message.body, to);
      got.delivery.accept();
    }
    receiver.close();
  });

  test('an exchange with a subject', async () => {
    const key = randomBytes(6).toString('hex');
    const receiver = connection.open_receiver({ source: `amq.topic/${key}.#`, credit_window: 10 });
    await once(receiver, 'receiver_open');
    await send('amq.topic', { subject: `${key}.a.b`, body: 'yes' });
    const { message } = await once(receiver, 'message');
    assert.equal(message.body, 'yes');
    receiver.close();
  });

  test('a link to what is not there is refused', async () => {
    const sender = connection.open_sender({ target: '/queues/there-is-no-such-queue' });
    await once(sender, 'sender_error');
    assert.equal(sender.error.condition, 'amqp:not-found');
  });

  test('released, modified and accepted', async () => {
    const { receiver, address } = await queue();
    await send(address, { body: 'again' });
    let got = await next(receiver);
    assert.ok(got.message.first_acquirer);
    got.delivery.release();
    got = await next(receiver);
    assert.equal(got.message.delivery_count ?? 0, 0);
    got.delivery.release({ delivery_failed: true, message_annotations: { 'x-opt-seen': true } });
    got = await next(receiver);
    assert.equal(got.message.delivery_count, 1);
    assert.equal(got.message.message_annotations['x-opt-seen'], true);
    got.delivery.accept();
    assert.ok(await nothing(receiver));
    receiver.close();
  });

  test('selectors', async () => {
    const { receiver, address } = await queue();
    const green = connection.open_receiver({
      source: { address, filter: filter.selector("colour = 'green'") }, credit_window: 10 });
    await once(green, 'receiver_open');
    assert.ok(green.source.filter, 'the filter is echoed');
    const found = once(green, 'message');
    await send(address, { application_properties: { colour: 'red' }, body: 1 });
    await send(address, { application_properties: { colour: 'green' }, body: 2 });
    assert.equal((await found).message.body, 2);
    const got = await next(receiver);
    assert.equal(got.message.body, 1);
    got.delivery.accept();
    green.close();
    receiver.close();
  });

  test('a selector that is none', async () => {
    const { receiver, address } = await queue();
    const bad = connection.open_receiver({ source: { address, filter: filter.selector('colour = = 1') } });
    await once(bad, 'receiver_error');
    assert.equal(bad.error.condition, 'amqp:invalid-field');
    receiver.close();
  });

  test('browsing', async () => {
    const { receiver, address } = await queue();
    await send(address, { body: 'seen' });
    for (let turn = 0; turn < 2; turn += 1) {
      const browser = connection.open_receiver({ source: { address, distribution_mode: 'copy' }, credit_window: 10 });
      const { message } = await once(browser, 'message');
      assert.equal(message.body, 'seen');
      browser.close();
    }
    const got = await next(receiver);
    got.delivery.accept();
    receiver.close();
  });

  test('request and reply by the anonymous terminus', async () => {
    const service = await queue({ credit_window: 10 });
    const answers = connection.open_sender({ target: {} });
    service.receiver.on('message', ({ message }) => {
      answers.send({ to: message.reply_to, correlation_id: message.message_id, body: message.body.toUpperCase() });
    });
    const client = await queue();
    await send(service.address, { reply_to: client.address, message_id: 'q1', body: 'question' });
    const { message, delivery } = await next(client.receiver);
    assert.deepEqual([message.correlation_id, message.body], ['q1', 'QUESTION']);
    delivery.accept();
    service.receiver.close();
    client.receiver.close();
    answers.close();
  });

  test('three megabytes', async () => {
    const { receiver, address } = await queue();
    const body = 'dragoman'.repeat(400000);
    await send(address, { body });
    const got = await next(receiver);
    assert.equal(got.message.body, body);
    got.delivery.accept();
    receiver.close();
  });

  test('a durable subscription', async () => {
    const container = `container-${randomBytes(6).toString('hex')}`;
    const key = randomBytes(6).toString('hex');
    const source = { address: `amq.topic/${key}`, durable: 2, expiry_policy: 'never' };
    const first = connect({ container_id: container });
    let receiver = first.open_receiver({ name: 'sub', source, credit_window: 0 });
    await once(receiver, 'receiver_open');
    receiver.detach();
    await once(receiver, 'receiver_close');
    first.close();
    await once(first, 'connection_close');
    await send(`amq.topic/${key}`, { body: 'meanwhile' });
    const second = connect({ container_id: container });
    receiver = second.open_receiver({ name: 'sub', source, credit_window: 10 });
    const { message } = await once(receiver, 'message');
    assert.equal(message.body, 'meanwhile');
    receiver.close(); // which ends the subscription
    await once(receiver, 'receiver_close');
    second.close();
    await once(second, 'connection_close');
  });

  test('many messages, pre-settled and not', async () => {
    const { receiver, address } = await queue({ credit_window: 100, autoaccept: true });
    const count = 5000;
    const sender = connection.open_sender({ target: address });
    let sent = 0;
    sender.on('sendable', () => {
      while (sent < count && sender.sendable()) sender.send({ body: sent++, durable: sent % 2 === 0 });
    });
    let seen = 0;
    await new Promise((resolve, reject) => {
      receiver.on('message', ({ message }) => {
        if (message.body !== seen) reject(new Error(`${message.body} instead of ${seen}`));
        seen += 1;
        if (seen === count) resolve();
      });
    });
    sender.close();
    receiver.close();
  });
});
