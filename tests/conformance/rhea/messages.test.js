// rhea: messages. Types, sections, addresses, outcomes, selectors, transactions, sizes, pre-settled deliveries.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const rhea = require('rhea');
const { Inbox, connect, deliver, end, once, queue, send, unique, until, url } = require('./support');

const { types, filter } = rhea;

/** A value as it can be compared: rhea wraps some of them in objects that say their type. */
function plain(wrapped) {
  const value = wrapped.valueOf();
  return Buffer.isBuffer(value) ? value.toString('hex') : Number.isNaN(Number(value)) ? value : Number(value);
}

const VALUES = {
  ubyte: types.wrap_ubyte(255), ushort: types.wrap_ushort(65535), uint: types.wrap_uint(4294967295),
  ulong: types.wrap_ulong(2 ** 53 - 1), byte: types.wrap_byte(-128), short: types.wrap_short(-32768),
  int: types.wrap_int(-2147483648), long: types.wrap_long(-(2 ** 53) + 1), float: types.wrap_float(1.5),
  double: types.wrap_double(-0.1), boolean: types.wrap_boolean(true), string: types.wrap_string('gr\u00fc\u00df'),
  symbol: types.wrap_symbol('symbol'), binary: types.wrap_binary(Buffer.from([0, 255])),
  timestamp: types.wrap_timestamp(-1000), uuid: types.wrap_uuid(Buffer.alloc(16, 7)), char: types.wrap_char(0x1f600),
};

for (const [name, value] of Object.entries(VALUES)) {
  test(`a value of type ${name}`, async (t) => {
    const connection = await connect(t);
    const inbox = await queue(connection);
    await send(connection, inbox.address, { body: value, application_properties: { value } });
    const message = await inbox.take();
    assert.equal(plain(message.body), plain(value.value));
    assert.equal(plain(message.application_properties.value), plain(value.value));
  });
}

test('lists, maps, data and sequences', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const { data_section: data, sequence_section: sequence } = rhea.message;
  for (const body of [{ a: [1, 'two', null, { b: true }] }, [1, [2, [3]]], data(Buffer.from('data')),
    sequence([1, 'a'])]) {
    await send(connection, inbox.address, { body });
    const message = await inbox.take();
    assert.equal(message.body.typecode, body.typecode);
    assert.deepEqual(message.body.content ?? message.body, body.content ?? body);
  }
});

test('a message of many sections', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const pieces = Array.from({ length: 300 }, (_, number) => Buffer.alloc(number * 3, number));
  await send(connection, inbox.address, { body: rhea.message.data_sections(pieces) });
  let { body } = await inbox.take();
  assert.equal(body.typecode, 0x75);
  assert.deepEqual(body.content, pieces);
  const lists = Array.from({ length: 300 }, (_, number) => [number, `${number}`]);
  await send(connection, inbox.address, { body: rhea.message.sequence_sections(lists) });
  ({ body } = await inbox.take());
  assert.equal(body.typecode, 0x76);
  assert.deepEqual(body.content, lists);
});

test('a message of another format comes as it was sent, byte for byte', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const encoded = rhea.message.encode({ subject: 'encoded', body: types.wrap_long(5) });
  const bytes = encoded.subarray(encoded.indexOf(Buffer.from([0, 0x53, 0x73]))); // without the header, which is ours
  const sender = connection.open_sender({ target: inbox.address });
  await once(sender, 'sendable');
  const settled = once(sender, 'settled');
  sender.send(bytes, 'tag', 77);
  await settled;
  const { message, format, delivery } = await inbox.next();
  delivery.accept();
  assert.equal(format, 77);
  assert.equal(message.subarray(-bytes.length).toString('hex'), bytes.toString('hex'));
});

test('properties and annotations', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const sent = {
    message_id: 'id', user_id: Buffer.from(url.username), to: 'to', subject: 'subject', reply_to: 'reply',
    correlation_id: types.wrap_ulong(7), content_type: 'a/b', content_encoding: 'gzip', group_id: 'group',
    group_sequence: 4294967295, reply_to_group_id: 'other', priority: 9, durable: true, ttl: 60000,
    creation_time: new Date(1500000000123), absolute_expiry_time: new Date(4100000000000),
    message_annotations: { 'x-opt-a': 'b' }, application_properties: { key: 'value' }, body: 'body' };
  await send(connection, inbox.address, sent);
  const message = await inbox.take();
  for (const name of ['message_id', 'to', 'subject', 'reply_to', 'content_type', 'content_encoding', 'group_id',
    'group_sequence', 'reply_to_group_id', 'priority', 'durable', 'body']) {
    assert.equal(message[name], sent[name], name);
  }
  assert.equal(Number(message.correlation_id), 7);
  assert.equal(message.user_id.toString(), url.username);
  assert.equal(Number(message.creation_time), 1500000000123);
  assert.equal(Number(message.absolute_expiry_time), 4100000000000);
  assert.equal(message.message_annotations['x-opt-a'], 'b');
  assert.equal(message.application_properties.key, 'value');
  assert.ok(message.ttl > 0 && message.ttl <= 60000);
});

test('a user-id of somebody else ends the link or is rejected', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const { outcome, error } = await deliver(connection, inbox.address, { user_id: Buffer.from('nobody'), body: 'x' });
  assert.equal(outcome, 'rejected');
  assert.equal(error.condition, 'amqp:unauthorized-access');
});

test('addresses, those of RabbitMQ 3 and 4 among them', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  for (const address of [inbox.address, `/queues/${inbox.address}`, `/amq/queue/${inbox.address}`,
    `/queue/${inbox.address}`]) {
    await send(connection, address, { body: address });
    assert.equal((await inbox.take()).body, address);
  }
  const { outcome, error } = await deliver(connection, '/exchanges/amq.direct/none', { body: 'lost' });
  assert.equal(outcome, 'rejected');
  assert.equal(error.condition, 'amqp:not-found');
});

test('an exchange with a subject', async (t) => {
  const connection = await connect(t);
  const key = unique('key');
  const inbox = await Inbox.open(connection, { source: `amq.topic/${key}.#` });
  await send(connection, 'amq.topic', { subject: `${key}.a.b`, body: 'yes' });
  assert.equal((await inbox.take()).body, 'yes');
});

test('released, modified and accepted', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  await send(connection, inbox.address, { body: 'again' });
  let got = await inbox.next();
  assert.equal(got.message.first_acquirer, true);
  got.delivery.release();
  got = await inbox.next();
  assert.equal(got.message.delivery_count ?? 0, 0);
  assert.equal(got.message.first_acquirer ?? false, false);
  got.delivery.release({ delivery_failed: true, message_annotations: { 'x-opt-seen': true } });
  got = await inbox.next();
  assert.equal(got.message.delivery_count, 1);
  assert.equal(got.message.message_annotations['x-opt-seen'], true);
  got.delivery.modified({ undeliverable_here: true });
  assert.equal(await inbox.drained(1), 0); // not for this link any more
  const other = await Inbox.open(connection, { source: inbox.address });
  assert.equal((await other.take()).body, 'again');
  assert.equal(await other.drained(1), 0);
  await other.close();
});

test('rejected', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  await send(connection, inbox.address, { body: 'bad' });
  const { delivery } = await inbox.next();
  delivery.reject({ condition: 'app:bad', description: 'it is bad' });
  assert.equal(await inbox.drained(1), 0);
});

test('a receiver that settles second is told that the broker has settled', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection, { rcv_settle_mode: 1 });
  assert.equal(inbox.link.rcv_settle_mode, 1);
  await send(connection, inbox.address, { body: 'x' });
  const { delivery } = await inbox.next();
  const settled = once(inbox.link, 'settled');
  delivery.accept(); // rhea leaves it unsettled
  assert.equal((await settled).delivery, delivery);
});

test('pre-settled both ways', async (t) => {
  const connection = await connect(t);
  const keeper = await queue(connection);
  const sender = connection.open_sender({ target: keeper.address, snd_settle_mode: 1 });
  await once(sender, 'sendable');
  assert.equal(sender.snd_settle_mode, 1);
  for (let number = 0; number < 50; number += 1) assert.equal(sender.send({ body: number }).settled, true);
  await end(sender, 'sender', 'close');
  const inbox = await Inbox.open(connection, { source: keeper.address, snd_settle_mode: 1, autoaccept: true });
  assert.equal(inbox.link.snd_settle_mode, 1);
  inbox.link.add_credit(50);
  for (let number = 0; number < 50; number += 1) {
    const { message, delivery } = await inbox.arrival();
    assert.equal(message.body, number);
    assert.equal(delivery.remote_settled, true);
  }
  await inbox.close();
  assert.equal(await keeper.drained(1), 0); // nothing came back
});

test('drain brings what there is', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  for (const body of [1, 2, 3]) await send(connection, inbox.address, { body });
  assert.equal(await inbox.drained(10), 3);
  assert.equal(inbox.link.credit, 0);
});

test('selectors', async (t) => {
  const connection = await connect(t);
  const all = await queue(connection);
  const green = await Inbox.open(connection, {
    source: { address: all.address, filter: filter.selector("colour = 'green'") } });
  assert.equal(green.link.source.filter['jms-selector'].toString(), "colour = 'green'"); // it is in force
  await send(connection, all.address, { application_properties: { colour: 'red' }, body: 1 });
  await send(connection, all.address, { application_properties: { colour: 'green' }, body: 2 });
  assert.equal((await green.take()).body, 2);
  assert.equal(await green.drained(1), 0);
  assert.equal((await all.take()).body, 1);
  await green.close();
});

test('a selector that is none', async (t) => {
  const connection = await connect(t);
  const { address } = await queue(connection);
  const bad = connection.open_receiver({ source: { address, filter: filter.selector('colour = = 1') } });
  await once(bad, 'receiver_error');
  assert.equal(bad.error.condition, 'amqp:invalid-field');
});

test('browsing', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  for (const body of [1, 2]) await send(connection, inbox.address, { body });
  for (let turn = 0; turn < 2; turn += 1) {
    const browser = await Inbox.open(connection, { source: { address: inbox.address, distribution_mode: 'copy' } });
    assert.equal(browser.link.source.distribution_mode, 'copy');
    assert.deepEqual([(await browser.next()).message.body, (await browser.next()).message.body], [1, 2]);
    assert.equal(await browser.drained(1), 0);
    await browser.close();
  }
  assert.deepEqual([(await inbox.take()).body, (await inbox.take()).body], [1, 2]);
});

test('request and reply by the anonymous terminus', async (t) => {
  const connection = await connect(t);
  const service = await queue(connection, { credit_window: 10, autoaccept: true });
  const answers = connection.open_sender({ target: {} });
  service.link.on('message', ({ message }) => {
    answers.send({ to: message.reply_to, correlation_id: message.message_id, body: message.body.toUpperCase() });
  });
  const client = await queue(connection);
  await send(connection, service.address, { reply_to: client.address, message_id: 'q1', body: 'question' });
  const { correlation_id: correlation, body } = await client.take();
  assert.deepEqual([correlation, body], ['q1', 'QUESTION']);
});

test('the anonymous terminus rejects what has nowhere to go', async (t) => {
  const connection = await connect(t);
  for (const message of [{ body: 'no address' }, { to: '/queues/there-is-no-such-queue', body: 'x' }]) {
    const { outcome, error } = await deliver(connection, {}, message);
    assert.equal(outcome, 'rejected');
    assert.equal(error.condition, 'amqp:not-found');
  }
});

test('three megabytes, in small frames', async (t) => {
  const connection = await connect(t, { max_frame_size: 4096 });
  const inbox = await queue(connection);
  const body = 'dragoman'.repeat(400000);
  await send(connection, inbox.address, { body });
  assert.equal((await inbox.take()).body, body);
});

test('many messages in their order', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection, { credit_window: 100, autoaccept: true });
  const count = 5000;
  const sender = connection.open_sender({ target: inbox.address });
  let sent = 0;
  let accepted = 0;
  sender.on('sendable', () => {
    for (; sent < count && sender.sendable(); sent += 1) sender.send({ body: sent, durable: sent % 2 === 0 });
  });
  sender.on('accepted', () => { accepted += 1; });
  for (let number = 0; number < count; number += 1) assert.equal((await inbox.arrival()).message.body, number);
  await until(() => accepted === count, 'all are accepted');
});

// rhea knows no transactions, but it lets one write what they are made of: a coordinator as target, the messages
// declare and discharge, and a transactional state to settle with. (It sends no state with a transfer.)

const VALUE_SECTION = Buffer.from([0, 0x53, 0x77]);
const DECLARE = 0x31;
const DISCHARGE = 0x32;
const DECLARED = '51';
const TRANSACTIONAL_STATE = 0x34;

async function coordinator(connection) {
  const sender = connection.open_sender({ target: {} });
  sender.local.attach.target = types.wrap_described([], 0x30);
  await once(sender, 'sendable');
  const tell = async (code, fields) => {
    const settled = once(sender, 'settled');
    const writer = new types.Writer();
    writer.write(types.wrap_described(fields, code));
    sender.send(Buffer.concat([VALUE_SECTION, writer.toBuffer()]), undefined, 0);
    return (await settled).delivery.remote_state;
  };
  return {
    declare: async () => {
      const state = await tell(DECLARE, []);
      assert.equal(String(state.descriptor.value), DECLARED);
      return types.wrap_binary(types.unwrap(state.value[0]));
    },
    discharge: async (id, fail) => {
      await new Promise(setImmediate); // rhea writes transfers before the dispositions that were made earlier
      const state = await tell(DISCHARGE, [id, fail]);
      assert.equal(state.constructor.composite_type, 'accepted');
    },
  };
}

test('settling within a transaction', async (t) => {
  const connection = await connect(t);
  const inbox = await queue(connection);
  const transactions = await coordinator(connection);
  await send(connection, inbox.address, { body: 'once' });
  const within = (id) => types.wrap_described([id, rhea.message.accepted().described()], TRANSACTIONAL_STATE);
  let id = await transactions.declare();
  let got = await inbox.next();
  got.delivery.update(true, within(id));
  await transactions.discharge(id, true); // rolled back
  id = await transactions.declare();
  got = await inbox.next();
  assert.equal(got.message.body, 'once');
  got.delivery.update(true, within(id));
  await transactions.discharge(id, false);
  assert.equal(await inbox.drained(1), 0);
});
