// SPDX-License-Identifier: MIT
//
// Checks a message that is a graph: its parts are messages of another kind,
// which refer to each other by digest (tvixb_graph_rule). Scans, orders and
// hashes the parts as messages of their own.
#ifndef TVIXB_GRAPH_H
#define TVIXB_GRAPH_H

#include "memory.h"
#include "order.h"
#include "report.h"
#include "scan.h"
#include "schema.h"
#include "tvix_build.h"

// The parts of the current message. Zero-initialize it before use.
typedef struct tvixb_graph {
  tvixb_scan scan;         // of a part; then of the digests of all parts
  tvixb_order order;       // likewise
  tvixb_vector parts;      // the parts, in the order of the message
  tvixb_vector refs;       // their references, part by part
  tvixb_vector targets;    // tvixb_view; what can be referred to, part by part,
                           // each sorted
  tvixb_vector encodings;  // tvixb_view; the canonical encodings
  tvixb_vector digests;    // of the encodings
  tvixb_vector reached;    // bytes: whether a root needs the part
  tvixb_vector visits;     // parts whose references are being followed
  tvixb_vector part_order;  // uint64_t; the reached parts, each after those
                            // that it refers to
  tvixb_vector places;      // size_t; an index of the sorted digests
  tvixb_vector described;   // uint64_t; the arrays of tvixb_graph_describe
  bool invalid;             // a part has no canonical encoding
  bool out_of_memory;
} tvixb_graph;

// Scans all parts of a scanned message, and orders their lists. Adds violations
// to the report. Writes encodings of unsorted parts to the arena. Returns false
// if a part is not in the ordinary form, or if an allocation fails
// (graph->out_of_memory). If the message is `normalized`, reports the parts
// with fields that do not decode, and returns true.
bool tvixb_graph_scan(tvixb_graph* graph, const tvixb_scan* scan,
                      const tvixb_graph_rule* rule, bool normalized,
                      tvixb_arena* arena, tvixb_report* report);

// Reports parts with other variants. Unless a part has no digest, also reports
// the order of the digests, references to unknown parts and parts that are not
// reached. `scan` is the scan of the message. Returns false if an allocation
// fails.
bool tvixb_graph_check(tvixb_graph* graph, const tvixb_scan* scan,
                       const tvixb_graph_rule* rule, tvixb_report* report);

// Writes the parts of a checked message to the beginning of its encoding, in
// the order of their digests and with sorted lists.
void tvixb_graph_encode(const tvixb_graph* graph, const tvixb_graph_rule* rule,
                        uint8_t* encoded);

// Describes the parts of a checked, canonical message, which begins at `data`.
// The arrays are valid until tvixb_graph_forget. Returns false if an allocation
// fails.
bool tvixb_graph_describe(tvixb_graph* graph, const uint8_t* data,
                          tvixb_steps* steps);

// Frees what tvixb_graph_describe returned.
void tvixb_graph_forget(tvixb_graph* graph);

// Frees vectors that are too large to keep for the next call, except for what
// tvixb_graph_describe returned.
void tvixb_graph_trim(tvixb_graph* graph);

// Frees the memory of a graph.
void tvixb_graph_free(tvixb_graph* graph);

#endif  // TVIXB_GRAPH_H
