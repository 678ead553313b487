// An MQTT client on MQTT.js, driven by JSON lines: the same requests and answers as those of paho_client.py.
// CAMPANILE_NPM is the folder whose node_modules has MQTT.js.

import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const mqtt = createRequire(`${process.env.CAMPANILE_NPM}/`)('mqtt')
const settings = JSON.parse(process.argv[2])
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`)
const protocols = { tcp: ['mqtt', 'mqtts'], websockets: ['ws', 'wss'] }
let client

const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value != null))
const properties = (values) => (settings.version === 5 ? defined(values) : undefined)

function userProperties(packet) {
  const pairs = Object.entries(packet.properties?.userProperties ?? {})
  return pairs.flatMap(([name, values]) => [values].flat().map((value) => [name, value]))
}

// The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677).
class Scram {
  constructor(username, password) {
    this.password = password
    this.nonce = randomBytes(18).toString('base64')
    this.bare = `n=${username},r=${this.nonce}`
  }

  first() {
    return Buffer.from(`n,,${this.bare}`)
  }

  final(challenge) {
    const hmac = (key, text) => createHmac('sha256', key).update(text).digest()
    const fields = Object.fromEntries(String(challenge).split(',').map((field) => [field[0], field.slice(2)]))
    if (!fields.r.startsWith(this.nonce)) throw new Error('the server does not use our nonce')
    const salted = pbkdf2Sync(this.password, Buffer.from(fields.s, 'base64'), Number(fields.i), 32, 'sha256')
    const clientKey = hmac(salted, 'Client Key')
    const withoutProof = `c=biws,r=${fields.r}`
    const signed = `${this.bare},${challenge},${withoutProof}`
    const signature = hmac(createHash('sha256').update(clientKey).digest(), signed)
    const proof = clientKey.map((byte, index) => byte ^ signature[index])
    this.expected = `v=${hmac(hmac(salted, 'Server Key'), signed).toString('base64')}`
    return Buffer.from(`${withoutProof},p=${Buffer.from(proof).toString('base64')}`)
  }
}

const actions = {
  connect({ id, client_id, clean = true, keep_alive = 60, expiry, username, password, scram, will, reconnect, receive_maximum }) {
    const exchange = scram && new Scram(username, password)
    let pending = true
    const settle = (answer) => {
      if (pending) say({ id, ...answer })
      pending = false
    }
    client = mqtt.connect({
      host: settings.host,
      port: settings.port,
      path: '/mqtt',
      protocol: protocols[settings.transport][settings.ca ? 1 : 0],
      ca: settings.ca ? readFileSync(settings.ca) : undefined,
      protocolVersion: settings.version,
      protocolId: settings.version === 3 ? 'MQIsdp' : 'MQTT',
      clientId: client_id,
      clean,
      keepalive: keep_alive,
      username: scram ? undefined : username,
      password: scram ? undefined : password,
      reconnectPeriod: reconnect ? 100 : 0,
      resubscribe: false,
      will: will && { ...will, properties: properties({ willDelayInterval: will.delay }) },
      properties: properties({
        sessionExpiryInterval: expiry,
        receiveMaximum: receive_maximum,
        authenticationMethod: exchange && 'SCRAM-SHA-256',
        authenticationData: exchange?.first(),
      }),
    })
    client.handleAuth = (packet, callback) => {
      const authenticationData = exchange.final(packet.properties.authenticationData)
      callback(null, { cmd: 'auth', reasonCode: 0x18, properties: { authenticationMethod: 'SCRAM-SHA-256', authenticationData } })
    }
    client.on('connect', (connack) => {
      const answer = {
        session_present: connack.sessionPresent,
        code: connack.reasonCode ?? connack.returnCode,
        assigned: connack.properties?.assignedClientIdentifier ?? null,
        receive_maximum: connack.properties?.receiveMaximum ?? null,
        server_proven: exchange ? String(connack.properties?.authenticationData) === exchange.expected : null,
      }
      settle({ ok: answer })
      say({ connected: answer })
    })
    client.on('error', (error) => {
      if (typeof error.code === 'number') settle({ ok: { session_present: false, code: error.code } })
      else settle({ error: String(error) })
    })
    let code = null
    client.on('disconnect', (packet) => {
      code = packet.reasonCode
    })
    client.on('close', () => {
      settle({ error: 'closed' })
      say({ disconnected: { code, by_server: code !== null } })
      code = null
    })
    client.on('message', (topic, payload, packet) => {
      const { qos, retain, dup } = packet
      say({ message: { topic, payload: payload.toString(), qos, retain, dup, user: userProperties(packet) } })
    })
  },

  subscribe({ id, filter, qos = 0, no_local = false, retain_handling = 0 }) {
    const options = settings.version === 5 ? { qos, nl: no_local, rh: retain_handling } : { qos }
    client.subscribe(filter, options, (error, granted, packet) => {
      if (error && !packet) say({ id, error: String(error) })
      else say({ id, ok: { codes: packet ? packet.granted : granted.map((grant) => grant.qos) } })
    })
  },

  unsubscribe({ id, filter }) {
    client.unsubscribe(filter, (error) => say(error ? { id, error: String(error) } : { id, ok: {} }))
  },

  publish({ id, topic, payload, qos = 0, retain = false, expiry, user }) {
    const userProperties = user && Object.fromEntries(user)
    const options = { qos, retain, properties: properties({ messageExpiryInterval: expiry, userProperties }) }
    client.publish(topic, payload, options, (error, packet) => {
      if (error && typeof error.code !== 'number') say({ id, error: String(error) })
      else say({ id, ok: { code: error?.code ?? packet?.reasonCode ?? 0 } })
    })
  },

  disconnect({ id }) {
    client.end(false, {}, () => say({ id, ok: {} }))
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  try {
    actions[request.do](request)
  } catch (error) {
    say({ id: request.id, error: String(error) })
  }
}
process.exit(0)
