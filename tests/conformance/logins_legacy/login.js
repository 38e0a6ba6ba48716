// Logs in once: amqplib by a certificate, `login.js amqplib PORT FOLDER CARD`, or mqtt.js by SCRAM-SHA-256 in AUTH
// packets, `login.js mqtt PORT USER PASSWORD`. Prints "in", or "refused" and what the client says of it.
'use strict';
const crypto = require('crypto');
const fs = require('fs');

const [client, port, ...rest] = process.argv.slice(2);

function end(text) {
  console.log(text);
  process.exit(0);
}

async function byCertificate(folder, card) {
  const amqp = require('amqplib');
  const pem = fs.readFileSync(`${folder}/${card}.pem`);
  const connection = await amqp.connect(`amqps://localhost:${port}`, {
    cert: pem, key: pem, ca: [fs.readFileSync(`${folder}/ca.pem`)], credentials: amqp.credentials.external()});
  await connection.close();
}

function hmac(key, data) {
  return crypto.createHmac('sha256', key).update(data).digest();
}

function byScram(user, password) {
  const mqtt = require('mqtt');
  const bare = `n=${user},r=${crypto.randomBytes(12).toString('hex')}`;
  const method = 'SCRAM-SHA-256';
  return new Promise((resolve, reject) => {
    const connection = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      protocolVersion: 5, reconnectPeriod: 0,
      properties: {authenticationMethod: method, authenticationData: Buffer.from(`n,,${bare}`)}});
    connection.handleAuth = (packet, callback) => {
      const first = packet.properties.authenticationData.toString();
      const [nonce, salt, iterations] = first.split(',').map((part) => part.slice(2));
      const salted = crypto.pbkdf2Sync(password, Buffer.from(salt, 'base64'), Number(iterations), 32, 'sha256');
      const key = hmac(salted, 'Client Key');
      const signature = hmac(crypto.createHash('sha256').update(key).digest(), `${bare},${first},c=biws,r=${nonce}`);
      const proof = Buffer.from(key.map((byte, at) => byte ^ signature[at])).toString('base64');
      callback(null, {cmd: 'auth', reasonCode: 0x18, properties: {
        authenticationMethod: method, authenticationData: Buffer.from(`c=biws,r=${nonce},p=${proof}`)}});
    };
    connection.on('connect', () => connection.end(false, () => resolve()));
    connection.on('error', reject);
  });
}

(client === 'amqplib' ? byCertificate(...rest) : byScram(...rest)).then(() => end('in'), (error) => end(`refused: ${error}`));
