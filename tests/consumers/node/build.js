// SPDX-License-Identifier: MIT
// A client of snix.build.v1 and snix.castore.v1 that only has their .proto files: uploads a directory, runs a request
// with it as the input, and writes the outputs to a new directory.
//
//     node build.js PROTOS HOST:PORT INPUT OUTPUTS <REQUEST.json >RESPONSE.json

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protos, address, input, outputs] = process.argv.slice(2);
const files = ["castore/protos/rpc_castore.proto", "build/protos/rpc_build.proto"];
const { snix } = grpc.loadPackageDefinition(
  loader.loadSync(
    files.map((file) => `snix/${file}`),
    { includeDirs: [protos], keepCase: true, longs: Number, oneofs: true, defaults: true },
  ),
);
const open = (service) => new service(address, grpc.credentials.createInsecure());
const blobs = open(snix.castore.v1.BlobService);
const directories = open(snix.castore.v1.DirectoryService);
const builds = open(snix.build.v1.BuildService);

/** Calls a method with one response. The messages are those of its stream, or its only request. */
function call(client, method, messages) {
  return new Promise((resolve, reject) => {
    const done = (error, response) => (error ? reject(error) : resolve(response));
    if (!Array.isArray(messages)) {
      client[method](messages, done);
      return;
    }
    const stream = client[method](done);
    messages.forEach((message) => stream.write(message));
    stream.end();
  });
}

/** Uploads a file system object. Returns its entry, and the Directories of its tree, leaves first. */
async function upload(place) {
  const name = Buffer.from(path.basename(place));
  const status = fs.lstatSync(place);
  if (status.isSymbolicLink()) {
    return { entry: { symlink: { name, target: fs.readlinkSync(place, "buffer") } }, tree: [] };
  }
  if (status.isFile()) {
    const { digest } = await call(blobs, "Put", [{ data: fs.readFileSync(place) }]);
    const executable = (status.mode & 0o100) !== 0;
    return { entry: { file: { name, digest, size: status.size, executable } }, tree: [] };
  }
  const directory = { directories: [], files: [], symlinks: [] };
  const lists = { directory: "directories", file: "files", symlink: "symlinks" };
  const tree = [];
  let size = 0;
  for (const child of fs.readdirSync(place).sort()) {
    const found = await upload(path.join(place, child));
    const [kind] = Object.keys(found.entry);
    directory[lists[kind]].push(found.entry[kind]);
    tree.push(...found.tree);
    size += 1 + (kind === "directory" ? found.entry.directory.size : 0);
  }
  tree.push(directory);
  const { root_digest: digest } = await call(directories, "Put", tree);
  return { entry: { directory: { name, digest, size } }, tree };
}

/** Downloads an entry. */
async function download(kind, entry, place) {
  if (kind === "symlink") {
    fs.symlinkSync(entry.target, place);
  } else if (kind === "file") {
    await call(blobs, "Stat", { digest: entry.digest });
    const parts = [];
    for await (const chunk of blobs.Read({ digest: entry.digest })) parts.push(chunk.data);
    fs.writeFileSync(place, Buffer.concat(parts), { mode: entry.executable ? 0o755 : 0o644 });
  } else {
    const found = [];
    for await (const one of directories.Get({ digest: entry.digest })) found.push(one);
    fs.mkdirSync(place);
    for (const [list, one] of [["directories", "directory"], ["files", "file"], ["symlinks", "symlink"]]) {
      for (const child of found[0][list]) await download(one, child, path.join(place, child.name.toString()));
    }
  }
}

async function main() {
  const { entry } = await upload(input);
  const request = { ...JSON.parse(fs.readFileSync(0)), inputs: [entry] };
  const response = await call(builds, "DoBuild", request);
  fs.mkdirSync(outputs);
  for (const [i, { output }] of response.outputs.entries()) {
    const place = path.join(outputs, path.basename(request.outputs[i]));
    await download(output.entry, output[output.entry], place);
  }
  process.stdout.write(JSON.stringify(response.outputs.map(({ needles }) => needles)));
  [blobs, directories, builds].forEach((client) => client.close());
}

main().catch((error) => {
  process.stderr.write(`${error}\n`);
  process.exitCode = 1;
});
