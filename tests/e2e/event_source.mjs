// A client of the event stream, for the end-to-end tests: prints a JSON line for each event. Its arguments are an address and an API key. Reconnects by itself.
// CAMPANILE_NPM is the folder whose node_modules has the library.

import { createRequire } from 'node:module'

const { EventSource } = createRequire(`${process.env.CAMPANILE_NPM}/`)('eventsource')
const [url, key] = process.argv.slice(2)
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`)
const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
})
source.onopen = () => say({ type: 'open' })
for (const type of ['push.accepted', 'push.delivered', 'push.done', 'gap']) {
  source.addEventListener(type, (event) => say({ type, id: event.lastEventId, data: JSON.parse(event.data) }))
}
