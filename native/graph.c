// SPDX-License-Identifier: MIT
#include "graph.h"

#include <string.h>

#include "decode.h"
#include "encode.h"
#include "hash.h"
#include "variant.h"
#include "wire.h"

#define NO_PART SIZE_MAX
#define NO_TARGET SIZE_MAX

// Parts are hashed after this many bytes, while they are still in the cache.
#define WINDOW_SIZE ((size_t)256 * 1024)

// The targets of a large message are at random places, so they are prefetched
// this many references ahead.
#define PREFETCH_DISTANCE 16

// A part of the message. Its references and targets are ranges of the vectors.
typedef struct part {
  size_t first_ref, ref_count;
  size_t first_target, target_count;
  uint8_t variant;
} part;

// A reference of a part.
typedef struct ref {
  // Of another part. A copy: in a large message, it is not in the cache when it
  // is searched for.
  uint8_t digest[TVIXB_DIGEST_SIZE];
  tvixb_view target;  // of that part
  size_t index;       // in the list as received
  size_t part;        // NO_PART: unknown
} ref;

static tvixb_view digest_view(const uint8_t* digest) {
  return (tvixb_view){digest, TVIXB_DIGEST_SIZE};
}

// Adds `count` items to a vector. Returns the first; NULL if an allocation
// fails or count is 0.
static void* add(tvixb_vector* vector, size_t count, size_t item_size) {
  if (!count || !tvixb_vector_reserve(vector, count, item_size)) return NULL;
  void* first = (uint8_t*)vector->items + vector->count * item_size;
  vector->count += count;
  return first;
}

// Returns the value of a string or message in the content of another one; an
// empty view if it is absent, or if the bytes changed since the scan.
static tvixb_view value_of(tvixb_view content, unsigned number) {
  const uint8_t *p = content.data, *end = content.data + content.size, *stop;
  while (p && p < end) {
    uint32_t tag, length;
    const uint8_t* value = tvixb_wire_tag(p, end, &tag);
    if (!value) break;
    p = tvixb_wire_skip(value, end, tag, TVIXB_WIRE_DEPTH_MAX, &stop);
    if (!p || tag != (number << 3 | TVIXB_WIRE_LENGTH)) continue;
    value = tvixb_wire_length(value, end, &length);
    if (!value || length > (size_t)(end - value)) break;
    return (tvixb_view){value, length};
  }
  return (tvixb_view){0};
}

// Returns the content of an element of a list.
static tvixb_view content_of(const tvixb_scan* scan, size_t element) {
  const tvixb_element* elements = scan->elements.items;
  const uint8_t* begin = scan->data + elements[element].begin;
  uint32_t length;
  const uint8_t* value = tvixb_wire_length(begin + 1, scan->end, &length);
  if (!value || length > (size_t)(scan->end - value)) return (tvixb_view){0};
  return (tvixb_view){value, length};
}

// Records the references and targets of a scanned part.
static bool record(tvixb_graph* graph, const tvixb_part* lists, part* found) {
  const tvixb_scan* scan = &graph->scan;
  const tvixb_list* list = &scan->lists[lists->refs - 1];
  found->first_ref = graph->refs.count;
  found->ref_count = list->count;
  ref* refs = add(&graph->refs, list->count, sizeof(ref));
  if (list->count && !refs) return false;
  for (size_t i = 0; i < list->count; i++) {
    tvixb_view content = content_of(scan, list->first + i);
    tvixb_view digest = value_of(content, lists->ref_digest);
    refs[i] = (ref){.target = value_of(content, lists->ref_target),
                    .index = i,
                    .part = NO_PART};
    // The size is another one only if the bytes changed since the scan.
    if (digest.size == TVIXB_DIGEST_SIZE) {
      memcpy(refs[i].digest, digest.data, TVIXB_DIGEST_SIZE);
    }
  }
  list = &scan->lists[lists->targets - 1];
  found->first_target = graph->targets.count;
  found->target_count = list->count;
  tvixb_view* targets = add(&graph->targets, list->count, sizeof(tvixb_view));
  if (list->count && !targets) return false;
  for (size_t i = 0; i < list->count; i++) {
    size_t element = tvixb_order_element(&graph->order, list, i);
    targets[i] = tvixb_scan_key(scan, element);
  }
  return true;
}

// Sets *encoding to the canonical encoding of a scanned part.
static bool encode(tvixb_graph* graph, const tvixb_kind* kind, bool unsorted,
                   tvixb_arena* arena, tvixb_view* encoding) {
  if (!unsorted) return true;
  uint8_t* encoded =
      tvixb_arena_take(arena, encoding->size + TVIXB_ENCODE_SLACK);
  if (!encoded) return false;
  encoding->size = tvixb_encode(&graph->scan, &graph->order, kind, encoded);
  encoding->data = encoded;
  return true;
}

// Begins the violations of a part.
static void begin_part(tvixb_report* report, const tvixb_graph_rule* rule,
                       size_t index, uint8_t variant) {
  report->variant = variant;
  report->outer.depth = 1;
  report->outer.field[0] = rule->parts;
  report->outer.index[0] = index;
}

// Begins the violations of the message itself.
static void end_parts(tvixb_report* report) {
  report->variant = 0;
  report->outer.depth = 0;
}

// Returns whether the encoded fields of a part decode, and reports them if not.
static bool decodes(const tvixb_kind* kind, tvixb_view bytes,
                    tvixb_report* report) {
  unsigned number;
  size_t stop;
  if (tvixb_decode_check_encoded(kind->message, bytes, &number, &stop)) {
    return true;
  }
  tvixb_path path = {.depth = 1, .field = {(uint8_t)number}};
  path.index[0] = TVIXB_NO_INDEX;
  tvixb_report_add(report, TVIXB_CODE_MALFORMED, &path, stop, (tvixb_view){0});
  return false;
}

// Scans part `index`, and orders its lists. Returns as tvixb_graph_scan.
static bool scan_part(tvixb_graph* graph, const tvixb_graph_rule* rule,
                      size_t index, tvixb_view bytes, bool normalized,
                      tvixb_arena* arena, tvixb_report* report) {
  part* found = (part*)graph->parts.items + index;
  tvixb_view* encoding = (tvixb_view*)graph->encodings.items + index;
  uint8_t variant = tvixb_variant_of(rule->part->message, bytes);
  const tvixb_kind* kind = tvixb_variant_kind(rule->part, variant);
  *found = (part){.variant = variant};
  *encoding = bytes;
  begin_part(report, rule, index, variant);
  if (normalized && !decodes(kind, bytes, report)) {
    graph->invalid = true;
    return true;
  }
  uint64_t not_sorted = report->not_sorted;
  uint64_t others = report->total - not_sorted;
  if (!tvixb_scan_message(&graph->scan, kind, bytes, NULL, report)) {
    graph->out_of_memory = graph->scan.out_of_memory;
    return false;
  }
  graph->out_of_memory =
      !tvixb_order_lists(&graph->order, &graph->scan, kind, NULL, NULL, report);
  if (graph->out_of_memory) return false;
  graph->invalid |= report->total - report->not_sorted != others;
  if (graph->invalid) return true;
  bool unsorted = report->not_sorted != not_sorted;
  graph->out_of_memory = !record(graph, &kind->part, found) ||
                         !encode(graph, kind, unsorted, arena, encoding);
  return !graph->out_of_memory;
}

// Hashes the parts first .. end.
static void hash_parts(tvixb_graph* graph, size_t first, size_t end) {
  const tvixb_view* encodings = graph->encodings.items;
  uint8_t* digests = graph->digests.items;
  tvixb_hash_many(encodings + first, end - first,
                  digests + first * TVIXB_DIGEST_SIZE);
}

bool tvixb_graph_scan(tvixb_graph* graph, const tvixb_scan* scan,
                      const tvixb_graph_rule* rule, bool normalized,
                      tvixb_arena* arena, tvixb_report* report) {
  const tvixb_view* parts = scan->parts.items;
  size_t count = scan->parts.count;
  graph->parts.count = graph->encodings.count = graph->digests.count = 0;
  graph->refs.count = graph->targets.count = 0;
  graph->invalid = graph->out_of_memory = false;
  graph->scan.outer_depth = 1;
  if (count && (!add(&graph->parts, count, sizeof(part)) ||
                !add(&graph->encodings, count, sizeof(tvixb_view)) ||
                !add(&graph->digests, count, TVIXB_DIGEST_SIZE))) {
    graph->out_of_memory = true;
    return false;
  }
  bool ordinary = true;
  for (size_t i = 0, hashed = 0, size = 0; i < count && ordinary; i++) {
    ordinary = scan_part(graph, rule, i, parts[i], normalized, arena, report);
    size += parts[i].size;
    if (size < WINDOW_SIZE && i + 1 < count) continue;
    if (!graph->invalid) hash_parts(graph, hashed, i + 1);
    hashed = i + 1;
    size = 0;
  }
  end_parts(report);
  return ordinary;
}

// Reports the parts whose variant is not that of the first part with one.
static void check_variants(const tvixb_graph* graph,
                           const tvixb_graph_rule* rule,
                           const tvixb_view* bytes, tvixb_report* report) {
  const part* parts = graph->parts.items;
  unsigned selector = rule->part->message->selector;
  uint8_t first = 0;
  for (size_t i = 0; i < graph->parts.count; i++) {
    if (!first) first = parts[i].variant;
    if (!parts[i].variant || parts[i].variant == first) continue;
    tvixb_path path = {.depth = 1, .field = {(uint8_t)selector}};
    path.index[0] = TVIXB_NO_INDEX;
    tvixb_view value = value_of(bytes[i], selector);
    begin_part(report, rule, i, parts[i].variant);
    tvixb_report_add(report, rule->variant_code, &path, value.size, value);
  }
  end_parts(report);
}

// Returns the bucket of a digest. There is one for each part, and digests are
// uniformly distributed.
static size_t bucket_of(const tvixb_graph* graph, uint64_t prefix) {
  return (size_t)((prefix >> 32) * graph->parts.count >> 32);
}

// Sets graph->places to the first place, in the order of the digests, that is
// not before each bucket. Returns false if an allocation fails.
static bool index_parts(tvixb_graph* graph) {
  const tvixb_list* list = &graph->scan.lists[0];
  const tvixb_element* elements = graph->scan.elements.items;
  size_t count = list->count, bucket = 0;
  graph->places.count = 0;
  size_t* places = add(&graph->places, count + 1, sizeof(size_t));
  if (!places) return false;
  for (size_t i = 0; i < count; i++) {
    size_t element = tvixb_order_element(&graph->order, list, i);
    size_t own = bucket_of(graph, elements[element].prefix);
    while (bucket <= own) places[bucket++] = i;
  }
  while (bucket <= count) places[bucket++] = count;
  return true;
}

// Makes the digests of the parts a list that must be sorted. Returns false if
// an allocation fails.
static bool order_parts(tvixb_graph* graph, const tvixb_graph_rule* rule,
                        tvixb_report* report) {
  static const tvixb_kind digests_kind = {.list_count = 1};
  tvixb_scan* scan = &graph->scan;
  tvixb_list* list = &scan->lists[0];
  size_t count = graph->parts.count;
  const uint8_t* digests = graph->digests.items;
  scan->data = digests;
  scan->end = digests + count * TVIXB_DIGEST_SIZE;
  scan->report = report;
  scan->elements.count = scan->packed.count = 0;
  scan->path.field[0] = rule->parts;
  *list = (tvixb_list){0};
  tvixb_scan_begin_list(scan, list, 0);
  for (size_t i = 0; i < count; i++) {
    tvixb_view digest = digest_view(digests + i * TVIXB_DIGEST_SIZE);
    if (!tvixb_scan_add_element(scan, list, true, i, 0, digest.data, digest)) {
      return false;
    }
  }
  tvixb_scan_end_list(scan, list, count, scan->end);
  return tvixb_order_lists(&graph->order, scan, &digests_kind, NULL, NULL,
                           report) &&
         index_parts(graph);
}

// Returns the index of the part with a digest; NO_PART if there is none.
static size_t find_part(const tvixb_graph* graph, tvixb_view digest) {
  const size_t* places = graph->places.items;
  size_t from = places[bucket_of(graph, tvixb_view_prefix(digest))];
  return tvixb_order_find(&graph->order, &graph->scan, &graph->scan.lists[0],
                          from, digest);
}

// Returns the index of a target of a part in graph->targets; NO_TARGET if the
// part lacks it.
static size_t find_target(const tvixb_graph* graph, const part* found,
                          tvixb_view target) {
  const tvixb_view* targets = graph->targets.items;
  size_t low = found->first_target, high = low + found->target_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = tvixb_view_compare(targets[middle], target);
    if (order == 0) return middle;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NO_TARGET;
}

// Reports field `number` of a reference, which has the value, in part `index`.
static void report_ref(const tvixb_graph* graph, const tvixb_graph_rule* rule,
                       size_t index, const ref* wrong, unsigned number,
                       tvixb_view value, tvixb_report* report) {
  const part* parts = graph->parts.items;
  const tvixb_kind* kind = tvixb_variant_kind(rule->part, parts[index].variant);
  tvixb_path path = {.depth = 2};
  path.field[0] = kind->part.ref_field;
  path.index[0] = wrong->index;
  path.field[1] = (uint8_t)number;
  path.index[1] = TVIXB_NO_INDEX;
  begin_part(report, rule, index, parts[index].variant);
  tvixb_report_add(
      report,
      wrong->part == NO_PART ? rule->unknown_code : rule->unknown_target_code,
      &path, value.size, value);
  end_parts(report);
}

// Finds the parts to which the parts refer.
static void resolve(tvixb_graph* graph) {
  ref* refs = graph->refs.items;
  for (size_t i = 0; i < graph->refs.count; i++) {
    refs[i].part = find_part(graph, digest_view(refs[i].digest));
  }
}

// Prefetches the first target of the part to which reference `index` refers.
static inline void prefetch_target(const tvixb_graph* graph, size_t index) {
  if (index >= graph->refs.count) return;
  const ref* one = (const ref*)graph->refs.items + index;
  if (one->part == NO_PART) return;
  const part* found = (const part*)graph->parts.items + one->part;
  const tvixb_view* targets = graph->targets.items;
  __builtin_prefetch(one->target.data);
  if (found->target_count) {
    __builtin_prefetch(targets[found->first_target].data);
  }
}

// Reports the references to unknown parts and to targets that a part lacks.
static void check_refs(const tvixb_graph* graph, const tvixb_graph_rule* rule,
                       tvixb_report* report) {
  const part* parts = graph->parts.items;
  for (size_t i = 0; i < graph->parts.count; i++) {
    const tvixb_part* lists =
        &tvixb_variant_kind(rule->part, parts[i].variant)->part;
    const ref* refs = (const ref*)graph->refs.items + parts[i].first_ref;
    for (size_t j = 0; j < parts[i].ref_count; j++) {
      const ref* one = &refs[j];
      prefetch_target(graph, parts[i].first_ref + j + PREFETCH_DISTANCE);
      if (one->part == NO_PART) {
        report_ref(graph, rule, i, one, lists->ref_digest,
                   digest_view(one->digest), report);
      } else if (find_target(graph, &parts[one->part], one->target) ==
                 NO_TARGET) {
        report_ref(graph, rule, i, one, lists->ref_target, one->target, report);
      }
    }
  }
}

// A part whose references are being followed.
typedef struct visit {
  size_t part;
  size_t followed;  // references
} visit;

// Marks a part as reached, and begins to visit it. NO_PART does nothing.
static void reach(tvixb_graph* graph, size_t index) {
  uint8_t* reached = graph->reached.items;
  if (index == NO_PART || reached[index]) return;
  reached[index] = 1;
  ((visit*)graph->visits.items)[graph->visits.count++] = (visit){index, 0};
}

// Follows the references of the part that is visited, and of those that they
// reach. Adds each part to the order after those that it refers to.
static void follow_refs(tvixb_graph* graph) {
  const part* parts = graph->parts.items;
  const ref* refs = graph->refs.items;
  while (graph->visits.count) {
    visit* last = (visit*)graph->visits.items + graph->visits.count - 1;
    const part* found = &parts[last->part];
    if (last->followed < found->ref_count) {
      reach(graph, refs[found->first_ref + last->followed++].part);
    } else {
      uint64_t* order = graph->part_order.items;
      order[graph->part_order.count++] = last->part;
      graph->visits.count--;
    }
  }
}

// Marks the parts that the roots need. Reports roots that are not parts.
static void reach_from_roots(tvixb_graph* graph, const tvixb_scan* scan,
                             const tvixb_graph_rule* rule,
                             tvixb_report* report) {
  const tvixb_list* roots = &scan->lists[rule->roots - 1];
  for (size_t i = 0; i < roots->count; i++) {
    tvixb_view digest = tvixb_scan_key(scan, roots->first + i);
    size_t found = find_part(graph, digest);
    reach(graph, found);
    follow_refs(graph);
    if (found != NO_PART) continue;
    tvixb_path path = {.depth = roots->depth, .field = {roots->field[0]}};
    path.index[0] = i;
    tvixb_report_add(report, rule->unknown_code, &path, digest.size, digest);
  }
}

// Reports the parts that no root needs. Only the first of equal parts is marked
// as reached.
static void report_unreached(const tvixb_graph* graph,
                             const tvixb_graph_rule* rule,
                             tvixb_report* report) {
  const uint8_t* reached = graph->reached.items;
  const uint8_t* digests = graph->digests.items;
  for (size_t i = 0; i < graph->parts.count; i++) {
    if (reached[i]) continue;
    tvixb_view digest = digest_view(digests + i * TVIXB_DIGEST_SIZE);
    size_t first = find_part(graph, digest);
    if (first != NO_PART && reached[first]) continue;
    tvixb_path path = {.depth = 1, .field = {rule->parts}};
    path.index[0] = i;
    tvixb_report_add(report, rule->unreached_code, &path, digest.size, digest);
  }
}

bool tvixb_graph_check(tvixb_graph* graph, const tvixb_scan* scan,
                       const tvixb_graph_rule* rule, tvixb_report* report) {
  size_t count = graph->parts.count;
  check_variants(graph, rule, scan->parts.items, report);
  if (graph->invalid) return true;
  graph->reached.count = graph->visits.count = graph->part_order.count = 0;
  if (!order_parts(graph, rule, report) ||
      !tvixb_vector_reserve(&graph->reached, count + 1, 1) ||
      !tvixb_vector_reserve(&graph->visits, count + 1, sizeof(visit)) ||
      !tvixb_vector_reserve(&graph->part_order, count + 1, sizeof(uint64_t))) {
    return false;
  }
  memset(graph->reached.items, 0, count + 1);
  resolve(graph);
  check_refs(graph, rule, report);
  reach_from_roots(graph, scan, rule, report);
  report_unreached(graph, rule, report);
  return true;
}

void tvixb_graph_encode(const tvixb_graph* graph, const tvixb_graph_rule* rule,
                        uint8_t* encoded) {
  const tvixb_view* encodings = graph->encodings.items;
  const tvixb_list* list = &graph->scan.lists[0];
  for (size_t i = 0; i < list->count; i++) {
    tvixb_view one = encodings[tvixb_order_element(&graph->order, list, i)];
    *encoded++ = (uint8_t)(rule->parts << 3 | TVIXB_WIRE_LENGTH);
    encoded = tvixb_wire_put_varint(encoded, one.size);
    if (one.size) memcpy(encoded, one.data, one.size);
    encoded += one.size;
  }
}

// Sets the offsets of a view in `data`; an absent one is empty.
static void set_range(const uint8_t* data, tvixb_view view, uint64_t* begin,
                      uint64_t* end) {
  *begin = view.data ? (uint64_t)(view.data - data) : 0;
  *end = *begin + view.size;
}

bool tvixb_graph_describe(tvixb_graph* graph, const uint8_t* data,
                          tvixb_steps* steps) {
  const part* parts = graph->parts.items;
  const ref* refs = graph->refs.items;
  const tvixb_view *encodings = graph->encodings.items,
                   *targets = graph->targets.items;
  size_t count = graph->parts.count, ref_count = graph->refs.count,
         target_count = graph->targets.count;
  size_t digests_size = count * TVIXB_DIGEST_SIZE;
  size_t numbers = digests_size / sizeof(uint64_t) + 5 * count + 2 +
                   2 * ref_count + 2 * target_count;
  graph->described.count = 0;
  uint64_t* digests = add(&graph->described, numbers, sizeof(uint64_t));
  if (!digests) return false;
  uint64_t* begins = digests + digests_size / sizeof(uint64_t);
  uint64_t *ends = begins + count, *ref_starts = ends + count;
  uint64_t* target_starts = ref_starts + count + 1;
  uint64_t* target_begins = target_starts + count + 1;
  uint64_t* target_ends = target_begins + target_count;
  uint64_t *ref_parts = target_ends + target_count,
           *ref_targets = ref_parts + ref_count;
  uint64_t* order = ref_targets + ref_count;
  if (count) {
    memcpy(digests, graph->digests.items, digests_size);
    memcpy(order, graph->part_order.items, count * sizeof(uint64_t));
  }
  for (size_t i = 0; i < count; i++) {
    set_range(data, encodings[i], &begins[i], &ends[i]);
    ref_starts[i] = parts[i].first_ref;
    target_starts[i] = parts[i].first_target;
  }
  ref_starts[count] = ref_count;
  target_starts[count] = target_count;
  for (size_t i = 0; i < target_count; i++) {
    set_range(data, targets[i], &target_begins[i], &target_ends[i]);
  }
  for (size_t i = 0; i < ref_count; i++) {
    prefetch_target(graph, i + PREFETCH_DISTANCE);
    ref_parts[i] = refs[i].part;
    ref_targets[i] = find_target(graph, parts + refs[i].part, refs[i].target);
  }
  *steps = (tvixb_steps){
      .count = count,
      .digests = (const uint8_t*)digests,
      .begins = begins,
      .ends = ends,
      .output_starts = target_starts,
      .output_begins = target_begins,
      .output_ends = target_ends,
      .ref_starts = ref_starts,
      .ref_steps = ref_parts,
      .ref_outputs = ref_targets,
      .order = order,
  };
  return true;
}

void tvixb_graph_forget(tvixb_graph* graph) {
  tvixb_vector_free(&graph->described);
}

void tvixb_graph_trim(tvixb_graph* graph) {
  tvixb_scan_trim(&graph->scan);
  tvixb_order_trim(&graph->order);
  tvixb_vector_trim(&graph->parts);
  tvixb_vector_trim(&graph->refs);
  tvixb_vector_trim(&graph->targets);
  tvixb_vector_trim(&graph->encodings);
  tvixb_vector_trim(&graph->digests);
  tvixb_vector_trim(&graph->reached);
  tvixb_vector_trim(&graph->visits);
  tvixb_vector_trim(&graph->part_order);
  tvixb_vector_trim(&graph->places);
}

void tvixb_graph_free(tvixb_graph* graph) {
  tvixb_scan_free(&graph->scan);
  tvixb_order_free(&graph->order);
  tvixb_vector_free(&graph->parts);
  tvixb_vector_free(&graph->refs);
  tvixb_vector_free(&graph->targets);
  tvixb_vector_free(&graph->encodings);
  tvixb_vector_free(&graph->digests);
  tvixb_vector_free(&graph->reached);
  tvixb_vector_free(&graph->visits);
  tvixb_vector_free(&graph->part_order);
  tvixb_vector_free(&graph->places);
  tvixb_graph_forget(graph);
}
