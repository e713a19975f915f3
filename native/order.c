// SPDX-License-Identifier: MIT
#include "order.h"

// Fills keys[first .. first + count) with those elements in sorted order.
static bool sort_elements(tvixb_order* order, const tvixb_scan* scan,
                          size_t first, size_t count) {
  order->keys.count = 0;
  if (!count) return true;  // There may be no memory to point to.
  if (!tvixb_vector_reserve(&order->keys, scan->elements.count,
                            sizeof(tvixb_sort_key))) {
    return false;
  }
  tvixb_sort_key* keys = order->keys.items;
  return tvixb_sort_elements(scan, first, count, keys + first, &order->memory);
}

// The element that is number `i` of the list in sorted order.
static size_t element_at(const tvixb_order* order, const tvixb_list* list,
                         size_t i) {
  const tvixb_sort_key* keys = order->keys.items;
  return list->unsorted ? keys[list->first + i].element : list->first + i;
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

// Compares the key of number `i` of the list in sorted order with an element's.
static inline int compare_at(const tvixb_order* order, const tvixb_scan* scan,
                             const tvixb_list* list, size_t i, size_t element) {
  return tvixb_scan_compare(scan, element_at(order, list, i), element);
}

// Whether numbers i - 1 and i of the list in sorted order are equal.
static bool equals_before(const tvixb_order* order, const tvixb_scan* scan,
                          const tvixb_list* list, size_t i) {
  if (list->unsorted) {
    const tvixb_sort_key* keys = order->keys.items;
    keys += list->first;
    if (keys[i - 1].prefix != keys[i].prefix) return false;
  }
  return compare_at(order, scan, list, i - 1, element_at(order, list, i)) == 0;
}

// Reports the later ones of equal keys in one list. The sort is stable, so the
// first of equal keys is the first as received.
static void report_duplicates(const tvixb_order* order, const tvixb_scan* scan,
                              const tvixb_list* list, tvixb_report* report) {
  for (size_t i = 1; i < list->count; i++) {
    if (equals_before(order, scan, list, i)) {
      report_element(scan, list, element_at(order, list, i),
                     TVIXB_CODE_DUPLICATE, report);
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
  const tvixb_sort_key* keys = order->keys.items;
  for (size_t i = 1; i < count; i++) {
    if (keys[i - 1].prefix != keys[i].prefix) continue;
    size_t element = keys[i].element;
    if (tvixb_scan_compare(scan, keys[i - 1].element, element) == 0) {
      report_element(scan, list_of(scan, kind, element), element,
                     TVIXB_CODE_DUPLICATE, report);
    }
  }
  return true;
}

// The first place at or after `from` whose key is not smaller than an
// element's: steps that double, then halves, so that a walk is linear and a
// jump logarithmic.
static size_t find_place(const tvixb_order* order, const tvixb_scan* scan,
                         const tvixb_list* list, size_t from, size_t element) {
  size_t step = 1, low = from, high = from;
  while (high < list->count &&
         compare_at(order, scan, list, high, element) < 0) {
    low = high + 1;
    high = step < list->count - high ? high + step : list->count;
    step *= 2;
  }
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare_at(order, scan, list, middle, element) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Walks both lists in sorted order.
static void check_relation(const tvixb_order* order, const tvixb_scan* scan,
                           const tvixb_relation* relation,
                           tvixb_report* report) {
  const tvixb_list* left = &scan->lists[relation->left - 1];
  const tvixb_list* right = &scan->lists[relation->right - 1];
  size_t place = 0;
  for (size_t i = 0; i < left->count; i++) {
    size_t element = element_at(order, left, i);
    place = find_place(order, scan, right, place, element);
    bool present = place < right->count &&
                   compare_at(order, scan, right, place, element) == 0;
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
  tvixb_sort_memory_free(&order->memory);
}
