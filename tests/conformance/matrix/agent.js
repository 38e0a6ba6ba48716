// rhea in the conformance matrix: does what lines of JSON on its input say, and answers each with a line of JSON.
// Messages are as matrix/notation.py has them: values by field, each value a list [type, content].
//
//   {op: "encode", side}           the message's bytes in hex, null where rhea refuses
//   {op: "decode", bytes}          the sections as rhea's codec reads them
//   {op: "send", queue, sides}     when all are accepted: true
//   {op: "read", queue, count}     for each message its sections as rhea's codec reads them, and the number of it
//   {op: "same", number, bytes}    whether that message is, as an application gets it, what these bytes are
//   {op: "kind", bytes}            what the application property v of such a message is in JavaScript
'use strict';

const readline = require('node:readline');
const { isDeepStrictEqual } = require('node:util');
const rhea = require('rhea');
const { types, message: codec } = rhea;

const taken = [];
let connection;

function connect() {
  const url = new URL(process.env.AMQP_URL);
  connection ||= rhea.create_container().connect({
    host: url.hostname, port: Number(url.port), username: url.username, password: url.password, reconnect: false });
  return connection;
}

// rhea hands out messages without their bytes, so these are taken on the way.
const decode = codec.decode;
let received;
codec.decode = (buffer) => {
  received = buffer;
  return decode(buffer);
};

// Writing.

const bytes = (hex) => Buffer.from(hex, 'hex');

/** A 64-bit number as rhea takes it: a number when that is exact, else its bytes. */
function wide(text) {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= 0) return number;
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt.asUintN(64, BigInt(text)));
  return buffer;
}

function real(kind, hex) {
  return kind === 'float' ? bytes(hex).readFloatBE() : bytes(hex).readDoubleBE();
}

const plain = {
  boolean: (v) => v,
  ubyte: Number, ushort: Number, uint: Number, byte: Number, short: Number, int: Number,
  ulong: wide, long: wide, timestamp: wide,
  float: (v) => real('float', v), double: (v) => real('double', v),
  decimal32: bytes, decimal64: bytes, decimal128: bytes,
  char: (v) => parseInt(v, 16), uuid: (v) => bytes(v.replaceAll('-', '')),
  binary: bytes, string: (v) => v, symbol: (v) => v,
};
const wrappers = { decimal32: types.Decimal32, decimal64: types.Decimal64, decimal128: types.Decimal128 };
const elements = {
  int: types.Int, ulong: types.Ulong, string: types.Str32, symbol: types.Sym32, double: types.Double,
  uuid: types.Uuid, timestamp: types.Timestamp, binary: types.Vbin32, list: types.List32 };

/** A value as rhea has typed values. */
function typed([kind, content]) {
  switch (kind) {
    case 'null': return types.Null();
    case 'list': return content.length ? types.List32(content.map(typed)) : types.List0();
    case 'map': return types.Map32(content.flat().map(typed));
    case 'array': return types.wrap_array(content[1].map((each) => element(content[0], each)),
      elements[content[0]].typecode);
    case 'described': return types.described(typed(content[0]), typed(content[1]));
    default: return (wrappers[kind] || types[`wrap_${kind}`])(plain[kind](content));
  }
}

function element(kind, [, content]) {
  return kind === 'list' ? content.map(typed) : plain[kind](content);
}

function values(map) {
  return Object.fromEntries(Object.entries(map).map(([name, value]) => [name, typed(value)]));
}

const ids = new Set(['message-id', 'correlation-id']);

/** A message as an application makes it. */
function written(side) {
  const message = {};
  for (const [name, value] of Object.entries(side)) {
    const field = name.replaceAll('-', '_');
    if (name === 'properties') message.application_properties = values(value);
    else if (name === 'annotations') message.message_annotations = values(value);
    else if (name === 'body') message.body = body(value);
    else message[field] = ids.has(name) ? typed(value) : plain[value[0]](value[1]);
  }
  return message;
}

function body(sections) {
  if (!sections.length) return codec.data_sections([]);
  const [kind] = sections[0];
  if (kind === 'value') return typed(sections[0][1]);
  const contents = sections.map(([, content]) => (kind === 'data' ? bytes(content) : content.map(typed)));
  const make = kind === 'data' ? [codec.data_section, codec.data_sections] : [codec.sequence_section, codec.sequence_sections];
  return contents.length === 1 ? make[0](contents[0]) : make[1](contents);
}

// Reading.

const alias = { true: 'boolean', false: 'boolean', charutf32: 'char', vbin: 'binary', str: 'string', sym: 'symbol' };

function kind_of(type) {
  const name = type.name.toLowerCase();
  if (name.startsWith('decimal')) return name;
  const short = name === 'charutf32' ? name : name.replace(/^small/, '').replace(/\d+$/, '');
  return alias[short] || short;
}

/** A typed value of rhea as we write it. */
function read(value) {
  const inner = bare(kind_of(value.type), value.value, value.array_constructor);
  return value.descriptor ? ['described', [read(value.descriptor), inner]] : inner;
}

function bare(kind, value, array) {
  switch (kind) {
    case 'null': return [kind, null];
    case 'boolean': return [kind, Boolean(value)];
    case 'list': return [kind, value.map(read)];
    case 'map': return [kind, Array.from({ length: value.length / 2 }, (_, at) => [read(value[2 * at]), read(value[2 * at + 1])])];
    case 'array': return [kind, [kind_of(types.by_code[array.typecode]), value.map(read)]];
    case 'float': case 'double': return [kind, real_bits(kind, value)];
    case 'binary': case 'decimal32': case 'decimal64': case 'decimal128': return [kind, value.toString('hex')];
    case 'uuid': return [kind, value.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')];
    case 'char': return [kind, value.toString(16)];
    case 'string': case 'symbol': return [kind, value];
    case 'timestamp': return [kind, String(value.getTime())];
    default: return [kind, Buffer.isBuffer(value) ? String(kind === 'long' ? value.readBigInt64BE() : value.readBigUInt64BE())
      : String(value)];
  }
}

function real_bits(kind, value) {
  const buffer = Buffer.alloc(kind === 'float' ? 4 : 8);
  if (kind === 'float') buffer.writeFloatBE(value); else buffer.writeDoubleBE(value);
  return buffer.toString('hex');
}

function sections(buffer) {
  const reader = new types.Reader(buffer);
  const found = [];
  while (reader.remaining()) found.push(read(reader.read()));
  return found;
}

/** What an application gets, but for how a described value, which stays as typed, was encoded. */
function shown(value) {
  if (value instanceof types.wrap_boolean(true).constructor) return read(value);
  if (Array.isArray(value)) return value.map(shown);
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, shown(each)]));
}

/** A message as an application gets it, with the defaults of its header, and without what passes. */
function lasting(message) {
  return shown({ ...message, durable: message.durable ?? false, priority: message.priority ?? 4, ttl: undefined,
    first_acquirer: undefined });
}

// What one is told.

const operations = {
  encode({ side }) {
    try {
      return codec.encode(written(side)).toString('hex');
    } catch (error) {
      return null;
    }
  },

  decode: ({ bytes: hex }) => sections(bytes(hex)),

  async send({ queue, sides }) {
    const sender = connect().open_sender({ target: queue });
    let accepted = 0;
    const done = new Promise((resolve, reject) => {
      sender.on('accepted', () => { accepted += 1; if (accepted === sides.length) resolve(true); });
      for (const bad of ['rejected', 'released', 'modified', 'sender_error']) {
        sender.on(bad, () => reject(new Error(`${bad} after ${accepted} messages`)));
      }
    });
    const left = sides.slice();
    const go_on = () => { while (left.length && sender.sendable()) sender.send(written(left.shift())); };
    sender.on('sendable', go_on);
    await done;
    sender.close();
    return true;
  },

  async read({ queue, count }) {
    const receiver = connect().open_receiver({ source: queue, credit_window: 0, autoaccept: true });
    const found = [];
    const done = new Promise((resolve) => {
      receiver.on('message', ({ message }) => {
        found.push({ sections: sections(received), number: taken.push(message) - 1 });
        if (found.length === count) resolve();
      });
    });
    receiver.add_credit(count);
    await done;
    receiver.close();
    return found;
  },

  same({ number, bytes: hex }) {
    return isDeepStrictEqual(lasting(taken[number]), lasting(codec.decode(bytes(hex))));
  },

  kind({ bytes: hex }) {
    const { v } = codec.decode(bytes(hex)).application_properties;
    return v === null ? 'null' : typeof v === 'object' ? v.constructor.name : typeof v;
  },
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const told = JSON.parse(line);
    console.log(JSON.stringify(await operations[told.op](told)));
  }
  connection?.close();
})();
