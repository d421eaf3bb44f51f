// A backend that decides about clients, with the standard library of Node.js.

import { createServer } from 'node:http';

const answers = {
  '/connect': (request, cookie) => {
    const session = /session=(\w+)/.exec(cookie);
    if (!session) return { error: { code: 1001, message: 'log in first' } };
    return { result: { user: session[1], channels: ['news'] } };
  },
  '/subscribe': ({ channel }) => {
    if (channel.startsWith('room')) return { result: {} };
    return { error: { code: 103, message: 'permission denied' } };
  },
  '/publish': ({ user, data }) => ({ result: { data: { from: user, text: data.text } } }),
  '/rpc': ({ method, data }) => {
    if (method === 'echo') return { result: { data } };
    return { error: { code: 104, message: 'method not found' } };
  },
};

const server = createServer(async (incoming, outgoing) => {
  let text = '';
  for await (const part of incoming) text += part;
  const answer = answers[incoming.url](JSON.parse(text), incoming.headers.cookie ?? '');
  outgoing.setHeader('Content-Type', 'application/json');
  outgoing.end(JSON.stringify(answer));
});

server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`listening on port ${server.address().port}`);
});
