// SPDX-License-Identifier: MIT
// A builder made with Node's HTTP/2 alone, which responds to each DoBuild in the same way.
//
//     node builder.js PORT|PATH <RESPONSE
//
// RESPONSE is a JSON object: `messages` (in base64), `trailers`, and `end`, which is false for a builder that never ends
// its response. Stdout gets a JSON line with the port or the path, and one for the headers and the request of each call
// and for each stream that the client resets. Other methods are UNIMPLEMENTED.

"use strict";

const fs = require("node:fs");
const http2 = require("node:http2");

const address = process.argv[2];
const response = JSON.parse(fs.readFileSync(process.stdin.fd));
const head = { ":status": 200, "content-type": "application/grpc" };
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function framed(message) {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

function respond(stream) {
  stream.respond(head, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(response.trailers));
  for (const message of response.messages) {
    stream.write(framed(Buffer.from(message, "base64")));
  }
  if (response.end) {
    stream.end();
  }
}

const server = http2.createServer();
server.on("stream", (stream, headers) => {
  if (!headers[":path"].endsWith("/DoBuild")) {
    stream.respond({ ...head, "grpc-status": 12 }, { endStream: true });
    return;
  }
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => {
    print({ headers, request: Buffer.concat(parts).subarray(5).toString("base64") });
    respond(stream);
  });
  stream.on("aborted", () => print({ reset: stream.rstCode }));
  stream.on("error", () => {});
});
server.listen(/^\d+$/.test(address) ? Number(address) : address, () => {
  const bound = server.address();
  print(typeof bound === "string" ? bound : bound.port);
});
