// SPDX-License-Identifier: MIT
#include "order.h"

#include <string.h>

// Below this many keys insertion beats merging.
#define INSERTION_COUNT 16

static int compare(const tvixb_scan* scan, const tvixb_order_key* a,
                   const tvixb_order_key* b) {
  if (a->prefix != b->prefix) return a->prefix < b->prefix ? -1 : 1;
  return tvixb_view_compare(tvixb_scan_key(scan, a->element),
                            tvixb_scan_key(scan, b->element));
}

static void sort_by_insertion(const tvixb_scan* scan, tvixb_order_key* keys,
                              size_t count) {
  for (size_t i = 1; i < count; i++) {
    tvixb_order_key key = keys[i];
    size_t place = i;
    for (; place > 0 && compare(scan, &key, &keys[place - 1]) < 0; place--) {
      keys[place] = keys[place - 1];
    }
    keys[place] = key;
  }
}

// Stable merge sort; what is sorted already costs one comparison a key.
// `scratch` has room for half of the keys. Recursion is log2(count) deep.
static void sort(const tvixb_scan* scan, tvixb_order_key* keys, size_t count,
                 tvixb_order_key* scratch) {
  if (count <= INSERTION_COUNT) {
    sort_by_insertion(scan, keys, count);
    return;
  }
  size_t half = count / 2;
  sort(scan, keys, half, scratch);
  sort(scan, keys + half, count - half, scratch);
  if (compare(scan, &keys[half - 1], &keys[half]) <= 0) return;
  memcpy(scratch, keys, half * sizeof *keys);
  size_t left = 0, right = half, out = 0;
  while (left < half && right < count) {
    keys[out++] = compare(scan, &keys[right], &scratch[left]) < 0
                      ? keys[right++]
                      : scratch[left++];
  }
  memcpy(keys + out, scratch + left, (half - left) * sizeof *keys);
}

// Fills keys[first .. first + count) with those elements in sorted order.
static bool sort_elements(tvixb_order* order, const tvixb_scan* scan,
                          size_t first, size_t count) {
  size_t total = scan->elements.count;
  order->keys.count = order->scratch.count = 0;
  if (!tvixb_vector_reserve(&order->keys, total, sizeof(tvixb_order_key)) ||
      !tvixb_vector_reserve(&order->scratch, total / 2 + 1,
                            sizeof(tvixb_order_key))) {
    return false;
  }
  tvixb_order_key* keys = order->keys.items;
  for (size_t i = first; i < first + count; i++) {
    keys[i] = (tvixb_order_key){tvixb_view_prefix(tvixb_scan_key(scan, i)), i};
  }
  sort(scan, keys + first, count, order->scratch.items);
  return true;
}

// The element that is number `i` of the list in sorted order.
static size_t element_at(const tvixb_order* order, const tvixb_list* list,
                         size_t i) {
  const tvixb_order_key* keys = order->keys.items;
  return list->unsorted ? keys[list->first + i].element : list->first + i;
}

static void report_element(const tvixb_scan* scan, const tvixb_list* list,
                           size_t element, tvixb_code code,
                           tvixb_report* report) {
  tvixb_path path = list->path;
  tvixb_view key = tvixb_scan_key(scan, element);
  path.index[path.depth - 1] = element - list->first;
  tvixb_report_add(report, code, &path, key.size, key);
}

// Reports the later ones of equal keys in one list. The sort is stable, so the
// first of equal keys is the first as received.
static void report_duplicates(const tvixb_order* order, const tvixb_scan* scan,
                              const tvixb_list* list, tvixb_report* report) {
  for (size_t i = 1; i < list->count; i++) {
    size_t element = element_at(order, list, i);
    size_t before = element_at(order, list, i - 1);
    if (tvixb_view_compare(tvixb_scan_key(scan, before),
                           tvixb_scan_key(scan, element)) == 0) {
      report_element(scan, list, element, TVIXB_CODE_DUPLICATE, report);
    }
  }
}

static const tvixb_list* list_of(const tvixb_scan* scan, const tvixb_kind* kind,
                                 size_t element) {
  unsigned i = 0;
  while (i + 1 < kind->list_count &&
         element - scan->lists[i].first >= scan->lists[i].count) {
    i++;
  }
  return &scan->lists[i];
}

// The same over all lists, as if they were one.
static bool report_shared_duplicates(tvixb_order* order, const tvixb_scan* scan,
                                     const tvixb_kind* kind,
                                     tvixb_report* report) {
  size_t count = scan->elements.count;
  if (!sort_elements(order, scan, 0, count)) return false;
  const tvixb_order_key* keys = order->keys.items;
  for (size_t i = 1; i < count; i++) {
    if (compare(scan, &keys[i - 1], &keys[i]) == 0) {
      size_t element = keys[i].element;
      report_element(scan, list_of(scan, kind, element), element,
                     TVIXB_CODE_DUPLICATE, report);
    }
  }
  return true;
}

// Walks both lists in sorted order.
static void check_relation(const tvixb_order* order, const tvixb_scan* scan,
                           const tvixb_relation* relation,
                           tvixb_report* report) {
  const tvixb_list* left = &scan->lists[relation->left - 1];
  const tvixb_list* right = &scan->lists[relation->right - 1];
  size_t j = 0;
  for (size_t i = 0; i < left->count; i++) {
    size_t element = element_at(order, left, i);
    tvixb_view key = tvixb_scan_key(scan, element);
    int difference = -1;
    while (j < right->count) {
      difference = tvixb_view_compare(
          key, tvixb_scan_key(scan, element_at(order, right, j)));
      if (difference <= 0) break;
      j++;
    }
    bool present = j < right->count && difference == 0;
    if (present == relation->present) {
      report_element(scan, left, element, relation->code, report);
    }
  }
}

bool tvixb_order_lists(tvixb_order* order, const tvixb_scan* scan,
                       const tvixb_kind* kind, tvixb_report* report) {
  if (kind->directory && !report_shared_duplicates(order, scan, kind, report)) {
    return false;
  }
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (list->unsorted &&
        !sort_elements(order, scan, list->first, list->count)) {
      return false;
    }
    if (!kind->directory && (list->unsorted || list->has_equals)) {
      report_duplicates(order, scan, list, report);
    }
  }
  for (unsigned i = 0; i < kind->relation_count; i++) {
    check_relation(order, scan, &kind->relations[i], report);
  }
  return true;
}

void tvixb_order_free(tvixb_order* order) {
  tvixb_vector_free(&order->keys);
  tvixb_vector_free(&order->scratch);
}
