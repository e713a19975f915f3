// SPDX-License-Identifier: MIT
#include "order.h"

#include <string.h>

#include "packed.h"
#include "rules.h"

// A key to search for.
typedef struct search {
  uint64_t prefix;
  tvixb_view key;
} search;

// Sorts the elements first .. first + count into order->keys, at the same
// indices.
static bool sort_elements(tvixb_order* order, const tvixb_scan* scan,
                          size_t first, size_t count) {
  order->keys.count = 0;
  if (!tvixb_vector_reserve(&order->keys, scan->elements.count,
                            sizeof(tvixb_sort_key))) {
    return false;
  }
  tvixb_sort_key* keys = order->keys.items;
  return tvixb_sort_elements(scan, first, count, keys + first,
                             &order->sort_memory);
}

static uint64_t prefix_at(const tvixb_order* order, const tvixb_scan* scan,
                          const tvixb_list* list, size_t i) {
  const tvixb_element* elements = scan->elements.items;
  return elements[tvixb_order_element(order, list, i)].prefix;
}

static void report_element(const tvixb_scan* scan, const tvixb_list* list,
                           size_t element, tvixb_code code,
                           tvixb_report* report) {
  tvixb_path path = {.depth = list->depth};
  tvixb_view key = tvixb_scan_key(scan, element);
  for (unsigned i = 0; i < path.depth; i++) {
    path.field[i] = list->field[i];
    path.index[i] = TVIXB_NO_INDEX;
  }
  path.index[path.depth - 1] = element - list->first;
  tvixb_report_add(report, code, &path, key.size, key);
}

// Compares the key of element `i` of the sorted list with `wanted`.
static inline int compare_at(const tvixb_order* order, const tvixb_scan* scan,
                             const tvixb_list* list, size_t i,
                             const search* wanted) {
  uint64_t prefix = prefix_at(order, scan, list, i);
  if (prefix != wanted->prefix) return prefix < wanted->prefix ? -1 : 1;
  return tvixb_view_compare(
      tvixb_scan_key(scan, tvixb_order_element(order, list, i)), wanted->key);
}

// Returns whether elements i - 1 and i of the sorted list have equal keys.
static bool equals_before(const tvixb_order* order, const tvixb_scan* scan,
                          const tvixb_list* list, size_t i) {
  if (list->unsorted) {
    const tvixb_sort_key* keys = order->keys.items;
    keys += list->first;
    if (keys[i - 1].prefix != keys[i].prefix) return false;
  }
  return tvixb_scan_compare(scan, tvixb_order_element(order, list, i - 1),
                            tvixb_order_element(order, list, i)) == 0;
}

// Reports all but the first of equal keys in a list. The sort is stable, so the
// first of equal keys is the first one in the message.
static void report_duplicates(const tvixb_order* order, const tvixb_scan* scan,
                              const tvixb_list* list, tvixb_report* report) {
  for (size_t i = 1; i < list->count; i++) {
    if (equals_before(order, scan, list, i)) {
      report_element(scan, list, tvixb_order_element(order, list, i),
                     TVIXB_CODE_DUPLICATE, report);
    }
  }
}

// Returns the first place at or after `from` whose key is not less than
// `wanted`. Uses a galloping search, which is fast for near and far places.
static size_t find_place(const tvixb_order* order, const tvixb_scan* scan,
                         const tvixb_list* list, size_t from,
                         const search* wanted) {
  size_t step = 1, low = from, high = from;
  while (high < list->count &&
         compare_at(order, scan, list, high, wanted) < 0) {
    low = high + 1;
    high = step < list->count - high ? high + step : list->count;
    step *= 2;
  }
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare_at(order, scan, list, middle, wanted) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static bool is_at(const tvixb_order* order, const tvixb_scan* scan,
                  const tvixb_list* list, size_t place, const search* wanted) {
  return place < list->count &&
         compare_at(order, scan, list, place, wanted) == 0;
}

size_t tvixb_order_find(const tvixb_order* order, const tvixb_scan* scan,
                        const tvixb_list* list, size_t from, tvixb_view key) {
  search wanted = {tvixb_view_prefix(key), key};
  size_t place = find_place(order, scan, list, from, &wanted);
  if (!is_at(order, scan, list, place, &wanted)) return SIZE_MAX;
  return tvixb_order_element(order, list, place) - list->first;
}

static search search_for_key(const tvixb_scan* scan, size_t element) {
  const tvixb_element* elements = scan->elements.items;
  return (search){elements[element].prefix, tvixb_scan_key(scan, element)};
}

// Returns the first place at or after `from` whose prefix is not less than
// `prefix`.
static size_t skip_prefixes(const tvixb_order* order, const tvixb_scan* scan,
                            const tvixb_list* list, size_t from,
                            uint64_t prefix) {
  while (from < list->count && prefix_at(order, scan, list, from) < prefix) {
    from++;
  }
  return from;
}

// Reports the first of equal keys in a list if an earlier list has the key,
// too. All lists are sorted and are merged. report_duplicates reports the other
// equal keys.
static void report_shared_duplicates(const tvixb_order* order,
                                     const tvixb_scan* scan, unsigned index,
                                     tvixb_report* report) {
  const tvixb_list* list = &scan->lists[index];
  if (!list->first) return;  // All earlier lists are empty.
  size_t places[TVIXB_LIST_MAX] = {0};
  for (size_t i = 0; i < list->count; i++) {
    uint64_t prefix = prefix_at(order, scan, list, i);
    bool present = false;
    for (unsigned earlier = 0; earlier < index && !present; earlier++) {
      const tvixb_list* other = &scan->lists[earlier];
      size_t* place = &places[earlier];
      *place = skip_prefixes(order, scan, other, *place, prefix);
      if (*place < other->count &&
          prefix_at(order, scan, other, *place) == prefix) {
        search wanted =
            search_for_key(scan, tvixb_order_element(order, list, i));
        *place = find_place(order, scan, other, *place, &wanted);
        present = is_at(order, scan, other, *place, &wanted);
      }
    }
    if (present && !(i && equals_before(order, scan, list, i))) {
      report_element(scan, list, tvixb_order_element(order, list, i),
                     TVIXB_CODE_DUPLICATE, report);
    }
  }
}

// Sets *wanted to the part of an element's key to search for. Returns false if
// the key cannot match.
static bool search_for(const tvixb_scan* scan, size_t element,
                       tvixb_match match, search* wanted) {
  if (match == TVIXB_MATCH_KEY ||
      (match == TVIXB_MATCH_BELOW_PREFIX && scan->path_prefix.size == 0)) {
    *wanted = search_for_key(scan, element);
    return true;
  }
  tvixb_view key = tvixb_scan_key(scan, element);
  if (match == TVIXB_MATCH_BELOW_PREFIX) {
    size_t skip = scan->path_prefix.size + 1;
    if (key.size < skip || !tvixb_rule_is_below(key, scan->path_prefix))
      return false;
    wanted->key = (tvixb_view){key.data + skip, key.size - skip};
  } else {
    wanted->key = tvixb_view_base_name(key);
  }
  wanted->prefix = tvixb_view_prefix(wanted->key);
  return true;
}

// Checks a relation in one pass over the sorted lists. That works for keys
// without a common prefix, too, because they are in the same order as the whole
// keys.
static void check_relation(const tvixb_order* order, const tvixb_scan* scan,
                           const tvixb_relation* relation,
                           tvixb_report* report) {
  const tvixb_list* left = &scan->lists[relation->left - 1];
  const uint8_t rights[2] = {relation->right, relation->also};
  size_t places[2] = {0};
  for (size_t i = 0; i < left->count; i++) {
    // report_duplicates reports the other equal keys.
    if (relation->code == TVIXB_CODE_DUPLICATE && i &&
        equals_before(order, scan, left, i)) {
      continue;
    }
    size_t element = tvixb_order_element(order, left, i);
    search wanted;
    bool present = false;
    bool searches = search_for(scan, element, relation->match, &wanted);
    for (unsigned j = 0; j < 2 && searches && rights[j] && !present; j++) {
      const tvixb_list* right = &scan->lists[rights[j] - 1];
      places[j] = find_place(order, scan, right, places[j], &wanted);
      present = is_at(order, scan, right, places[j], &wanted);
    }
    if (present == relation->forbidden) {
      report_element(scan, left, element, relation->code, report);
    }
  }
}

// Searches for the base name of each key of the left list in the right list,
// and then reports the keys of the right list that were not matched. Returns
// false if an allocation fails.
static bool check_base_names(tvixb_order* order, const tvixb_scan* scan,
                             const tvixb_relation* relation,
                             tvixb_report* report) {
  const tvixb_list* left = &scan->lists[relation->left - 1];
  const tvixb_list* right = &scan->lists[relation->right - 1];
  order->matched.count = 0;
  if (!tvixb_vector_reserve(&order->matched, right->count + 1, 1)) return false;
  uint8_t* matched = order->matched.items;
  memset(matched, 0, right->count + 1);
  for (size_t i = 0; i < left->count; i++) {
    size_t element = tvixb_order_element(order, left, i);
    search wanted;
    search_for(scan, element, TVIXB_MATCH_BASE_NAME, &wanted);
    size_t place = find_place(order, scan, right, 0, &wanted);
    if (is_at(order, scan, right, place, &wanted)) {
      matched[place] = 1;
    } else {
      report_element(scan, left, element, relation->code, report);
    }
  }
  for (size_t i = 0; i < right->count; i++) {
    // The search matches only the first of equal keys.
    if (i && !matched[i] && matched[i - 1]) {
      matched[i] = equals_before(order, scan, right, i);
    }
    if (!matched[i]) {
      report_element(scan, right, tvixb_order_element(order, right, i),
                     relation->unmatched_code, report);
    }
  }
  return true;
}

static bool check_relations(tvixb_order* order, const tvixb_scan* scan,
                            const tvixb_kind* kind, tvixb_report* report) {
  for (unsigned i = 0; i < kind->relation_count; i++) {
    const tvixb_relation* relation = &kind->relations[i];
    if (relation->match == TVIXB_MATCH_BASE_NAME) {
      if (!check_base_names(order, scan, relation, report)) return false;
    } else {
      check_relation(order, scan, relation, report);
    }
  }
  return true;
}

// Puts a list in the order of the keyed list to which it is parallel.
static void order_parallel(tvixb_order* order, tvixb_scan* scan,
                           tvixb_parallel_list parallel, tvixb_report* report) {
  tvixb_list* list = &scan->lists[parallel.list - 1];
  const tvixb_list* keyed = &scan->lists[parallel.keyed_list - 1];
  if (!list->count) return;
  if (list->count != keyed->count) {
    tvixb_path path = {.depth = list->depth};
    for (unsigned i = 0; i < path.depth; i++) {
      path.field[i] = list->field[i];
      path.index[i] = TVIXB_NO_INDEX;
    }
    tvixb_report_add(report, parallel.code, &path, list->count,
                     (tvixb_view){0});
    return;
  }
  if (!keyed->unsorted) return;
  const tvixb_element* elements = scan->elements.items;
  tvixb_sort_key* keys = order->keys.items;
  for (size_t i = 0; i < list->count; i++) {
    size_t element =
        list->first + (keys[keyed->first + i].element - keyed->first);
    keys[list->first + i] = (tvixb_sort_key){
        .element = (uint32_t)element,
        .begin = (uint32_t)elements[element].begin,
    };
  }
  list->unsorted = true;
}

// Reports the elements first .. end of the list that has a length rule.
static void report_elements(const tvixb_length_rule* rule, uint64_t first,
                            uint64_t end, tvixb_code code, uint64_t length,
                            tvixb_report* report) {
  tvixb_path path = {.depth = 1, .field = {rule->field}};
  uint64_t kept = 0;
  for (; first < end && kept < report->limit; first++, kept++) {
    path.index[0] = first;
    tvixb_report_add(report, code, &path, length, (tvixb_view){0});
  }
  tvixb_report_count(report, end - first);
}

// Compares the length of a list with the count that the caller gives.
static void check_length(const tvixb_scan* scan, const tvixb_kind* kind,
                         const uint64_t* caller_counts, tvixb_report* report) {
  const tvixb_length_rule* rule = &kind->length;
  unsigned count = kind->message->fields[rule->field].count;
  uint64_t found = scan->counts[count];
  uint64_t length = caller_counts[count];
  if (length == TVIXB_ANY) return;
  if (found > length) {
    report_elements(rule, length, found, rule->unexpected_code, length, report);
  } else if (found < length) {
    report_elements(rule, found, length, rule->missing_code, length, report);
  }
}

bool tvixb_order_lists(tvixb_order* order, tvixb_scan* scan,
                       const tvixb_kind* kind, const uint64_t* caller_counts,
                       tvixb_arena* arena, tvixb_report* report) {
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (list->unsorted &&
        !sort_elements(order, scan, list->first, list->count)) {
      return false;
    }
    if (list->unsorted || list->has_equals) {
      report_duplicates(order, scan, list, report);
    }
    if (kind->shared_keys && i)
      report_shared_duplicates(order, scan, i, report);
  }
  if (kind->parallel.list) order_parallel(order, scan, kind->parallel, report);
  if (kind->length.field) check_length(scan, kind, caller_counts, report);
  return check_relations(order, scan, kind, report) &&
         (!scan->packed.count ||
          tvixb_packed_order(scan, &order->numbers, arena, report));
}

void tvixb_order_trim(tvixb_order* order) {
  tvixb_vector_trim(&order->keys);
  tvixb_vector_trim(&order->matched);
  tvixb_vector_trim(&order->numbers);
  tvixb_vector_trim(&order->sort_memory.scratch);
  tvixb_vector_trim(&order->sort_memory.counts);
}

void tvixb_order_free(tvixb_order* order) {
  tvixb_vector_free(&order->keys);
  tvixb_vector_free(&order->matched);
  tvixb_vector_free(&order->numbers);
  tvixb_sort_memory_free(&order->sort_memory);
}
