// SPDX-License-Identifier: MIT
//
// Checks every vector of tests/vectors, alone and in a batch: verdict, digest,
// canonical encoding and violations. A vector is a line of its file, with keys
// in a fixed order and strings without escapes.
#define _GNU_SOURCE
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "level.h"
#include "tvix_build.h"
#include "wire.h"

#define VIOLATIONS_MAX 200

typedef struct vector {
  char* line;
  const char* name;
  const tvixb_kind* kind;
  bool has_request;           // for a response
  uint64_t outputs, needles;  // counts of the request
  uint8_t* data;
  size_t size;
  bool valid, canonical;
  const char* digest;         // hex; NULL: none
  const char* canonical_hex;  // NULL: none
  const char *codes[VIOLATIONS_MAX], *paths[VIOLATIONS_MAX];
  size_t violation_count;
} vector;

static int failures;

static void fail(const vector* v, const char* what) {
  fprintf(stderr, "%s: wrong %s\n", v->name, what);
  failures++;
}

// The kinds: kind and schema in vectors, and the name for tvixb_kind_find.
static const char* const kind_names[][3] = {
    {"build-request", "tvix.build.v1", "tvix.build.v1.BuildRequest"},
    {"build", "tvix.build.v1", "tvix.build.v1.Build"},
    {"directory", "tvix.build.v1", "tvix.castore.v1.Directory"},
    {"build-request", "tvix.build.v1@2024", "tvix.build.v1@2024.BuildRequest"},
    {"build", "tvix.build.v1@2024", "tvix.build.v1@2024.Build"},
    {"build-request", "snix.build.v1", "snix.build.v1.BuildRequest"},
    {"build", "snix.build.v1", "snix.build.v1.BuildResponse"},
    {"directory", "snix.build.v1", "snix.castore.v1.Directory"},
    {"step", "tvix.build.v1", "tvix_build.plan.v1.Step"},
    {"plan", "tvix.build.v1", "tvix_build.plan.v1.Plan"},
};
#define KINDS (sizeof kind_names / sizeof *kind_names)

// Moves *p past `text`, which must be next.
static void expect(char** p, const char* text) {
  if (strncmp(*p, text, strlen(text)) != 0) {
    fprintf(stderr, "expected %s, found %.40s\n", text, *p);
    exit(1);
  }
  *p += strlen(text);
}

// Reads the string at *p. Returns NULL for null.
static char* read_string(char** p) {
  if (**p == 'n') {
    expect(p, "null");
    return NULL;
  }
  expect(p, "\"");
  char *text = *p, *end = strchr(text, '"');
  if (!end) expect(p, "\"");
  *end = 0;
  *p = end + 1;
  return text;
}

static bool read_bool(char** p) {
  bool value = **p == 't';
  expect(p, value ? "true" : "false");
  return value;
}

static void read_hex(const char* hex, vector* v) {
  v->size = strlen(hex) / 2;
  v->data = malloc(v->size ? v->size : 1);
  for (size_t i = 0; i < v->size; i++) {
    const char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
    v->data[i] = (uint8_t)strtoul(digits, NULL, 16);
  }
}

// Returns whether `text` is next, and moves *p past it then.
static bool comes(char** p, const char* text) {
  bool found = strncmp(*p, text, strlen(text)) == 0;
  if (found) *p += strlen(text);
  return found;
}

static const tvixb_kind* read_kind(char** p) {
  const char *name = read_string(p), *schema = "tvix.build.v1";
  if (comes(p, ", \"schema\": ")) schema = read_string(p);
  for (size_t i = 0; i < KINDS; i++) {
    if (strcmp(name, kind_names[i][0]) == 0 &&
        strcmp(schema, kind_names[i][1]) == 0) {
      return tvixb_kind_find(kind_names[i][2]);
    }
  }
  fprintf(stderr, "no kind %s in %s\n", name, schema);
  exit(1);
}

// Counts the fields of a request with which its response is compared: outputs
// (6) and refscan_needles (10).
static void read_request(const char* hex, vector* v) {
  vector request = {0};
  read_hex(hex, &request);
  const uint8_t *p = request.data, *end = p + request.size, *stop;
  v->has_request = true;
  for (uint32_t tag = 0; p < end;) {
    p = tvixb_wire_tag(p, end, &tag);
    p = tvixb_wire_skip(p, end, tag, 1, &stop);
    v->outputs += tag == (6 << 3 | TVIXB_WIRE_LENGTH);
    v->needles += tag == (10 << 3 | TVIXB_WIRE_LENGTH);
  }
  free(request.data);
}

static void read_violations(char** p, vector* v) {
  expect(p, "[");
  while (**p != ']') {
    if (v->violation_count) expect(p, ", ");
    if (v->violation_count == VIOLATIONS_MAX) exit(1);
    expect(p, "[");
    v->codes[v->violation_count] = read_string(p);
    expect(p, ", ");
    v->paths[v->violation_count++] = read_string(p);
    expect(p, "]");
  }
}

static void read_vector(char* p, vector* v) {
  expect(&p, "{\"name\": ");
  v->name = read_string(&p);
  expect(&p, ", \"about\": ");
  read_string(&p);
  expect(&p, ", \"kind\": ");
  v->kind = read_kind(&p);
  expect(&p, ", \"hex\": ");
  read_hex(read_string(&p), v);
  if (comes(&p, ", \"request_hex\": ")) read_request(read_string(&p), v);
  expect(&p, ", \"valid\": ");
  v->valid = read_bool(&p);
  expect(&p, ", \"canonical\": ");
  v->canonical = read_bool(&p);
  expect(&p, ", \"digest\": ");
  v->digest = read_string(&p);
  expect(&p, ", \"canonical_hex\": ");
  v->canonical_hex = read_string(&p);
  expect(&p, ", \"violations\": ");
  read_violations(&p, v);
}

static bool equals_hex(const uint8_t* data, size_t size, const char* hex) {
  if (strlen(hex) != 2 * size) return false;
  for (size_t i = 0; i < size; i++) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", data[i]);
    if (memcmp(digits, hex + 2 * i, 2) != 0) return false;
  }
  return true;
}

static void check_violations(const tvixb_context* context, const vector* v,
                             uint64_t message) {
  size_t rows, count;
  const tvixb_violations_of* row = tvixb_violations_by_message(context, &rows);
  const tvixb_violation* all = tvixb_violations(context, &count);
  while (rows && row->message != message) row++, rows--;
  uint64_t total = rows ? row->total : 0;
  if (total != v->violation_count) fail(v, "number of violations");
  for (uint64_t i = 0; rows && i < row->kept && i < v->violation_count; i++) {
    const tvixb_violation* found = &all[row->first + i];
    char path[256], message_text[512];
    tvixb_violation_path(v->kind, found, path, sizeof path);
    if (strcmp(tvixb_code_name(found->code), v->codes[i]) != 0) fail(v, "code");
    if (strcmp(path, v->paths[i]) != 0) fail(v, "path");
    size_t size = tvixb_violation_message(v->kind, found, message_text,
                                          sizeof message_text);
    if (size == 0 || size >= sizeof message_text) fail(v, "message");
  }
}

static void check_result(const tvixb_context* context, const vector* v,
                         uint64_t message, const tvixb_results* results) {
  tvixb_verdict verdict = results->verdicts[message];
  const uint8_t* digest = results->digests + message * TVIXB_DIGEST_SIZE;
  if ((verdict <= TVIXB_VALID) != v->valid) fail(v, "validity");
  if ((verdict == TVIXB_CANONICAL) != v->canonical) fail(v, "canonical");
  if ((verdict <= TVIXB_UNSORTED) != (v->digest != NULL)) fail(v, "refusal");
  static const uint8_t zeros[TVIXB_DIGEST_SIZE];
  if (v->digest ? !equals_hex(digest, TVIXB_DIGEST_SIZE, v->digest)
                : memcmp(digest, zeros, sizeof zeros) != 0) {
    fail(v, "digest");
  }
  const char* hex = v->canonical_hex ? v->canonical_hex : "";
  const uint64_t* end = results->encodings->ends + message;
  uint64_t begin = message ? end[-1] : 0;
  if (!equals_hex(results->encodings->data + begin, (size_t)(*end - begin),
                  hex)) {
    fail(v, "canonical encoding");
  }
  check_violations(context, v, message);
}

static void check_alone(tvixb_context* context, const vector* v) {
  const uint64_t offsets[2] = {0, v->size};
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  uint64_t end;
  size_t room = tvixb_encoded_room(v->kind, v->size, offsets, offsets + 1, 1);
  const tvixb_encodings encodings = {malloc(room + 1), room, &end, 0};
  const tvixb_results results = {&verdict, digest, &encodings};
  if (v->has_request) {
    tvixb_context_set_request(context, v->outputs, v->needles);
  }
  if (tvixb_check(context, v->kind, v->data, v->size, offsets, offsets + 1, 1,
                  &results) != TVIXB_OK) {
    fail(v, "status");
  }
  tvixb_context_set_request(context, TVIXB_ANY, TVIXB_ANY);
  check_result(context, v, 0, &results);
  free(encodings.data);
}

// Checks all vectors of one kind in one call, back to back, except responses
// with a request.
static void check_together(tvixb_context* context, const vector* all,
                           size_t count, const tvixb_kind* kind) {
  size_t size = 0, n = 0;
  for (size_t i = 0; i < count; i++) size += all[i].size;
  uint8_t *data = malloc(size + 1), *digests = malloc(count * 32 + 1);
  uint8_t* verdicts = malloc(count + 1);
  uint64_t* offsets = calloc(count + 1, sizeof *offsets);
  for (size_t i = 0; i < count; i++) {
    if (all[i].kind != kind || all[i].has_request) continue;
    memcpy(data + offsets[n], all[i].data, all[i].size);
    offsets[n + 1] = offsets[n] + all[i].size;
    n++;
  }
  size_t room = tvixb_encoded_room(kind, size, offsets, offsets + 1, n);
  const tvixb_encodings encodings = {malloc(room + 1), room,
                                     calloc(count + 1, sizeof(uint64_t)), 0};
  const tvixb_results results = {verdicts, digests, &encodings};
  if (tvixb_check(context, kind, data, offsets[n], offsets, offsets + 1, n,
                  &results) != TVIXB_OK) {
    failures++;
  }
  n = 0;
  for (size_t i = 0; i < count; i++) {
    if (all[i].kind != kind || all[i].has_request) continue;
    check_result(context, &all[i], n++, &results);
  }
  free(encodings.data);
  free(encodings.ends);
  free(data);
  free(digests);
  free(verdicts);
  free(offsets);
}

static size_t read_file(const char* path, vector** all, size_t count) {
  FILE* file = fopen(path, "r");
  if (!file) {
    perror(path);
    exit(1);
  }
  char* line = NULL;
  size_t capacity = 0;
  while (getline(&line, &capacity, file) > 0) {
    if (strncmp(line, "{\"name\"", 7) != 0) continue;
    *all = realloc(*all, (count + 1) * sizeof **all);
    vector* v = &(*all)[count++];
    *v = (vector){.line = strdup(line)};
    read_vector(v->line, v);
  }
  free(line);
  fclose(file);
  return count;
}

int main(int argc, char** argv) {
  if (level_is_missing()) return 0;
  const char* directory = argc > 1 ? argv[1] : "tests/vectors";
  DIR* files = opendir(directory);
  if (!files) {
    perror(directory);
    return 1;
  }
  vector* all = NULL;
  size_t count = 0;
  for (struct dirent* file; (file = readdir(files));) {
    if (!strstr(file->d_name, ".json")) continue;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, file->d_name);
    count = read_file(path, &all, count);
  }
  closedir(files);
  tvixb_context* context = tvixb_context_new();
  for (size_t i = 0; i < count; i++) check_alone(context, &all[i]);
  for (size_t i = 0; i < KINDS; i++) {
    check_together(context, all, count, tvixb_kind_find(kind_names[i][2]));
  }
  tvixb_context_free(context);
  for (size_t i = 0; i < count; i++) {
    free(all[i].data);
    free(all[i].line);
  }
  free(all);
  printf("%zu vectors, %d failures\n", count, failures);
  return count < 100 || failures ? 1 : 0;
}
