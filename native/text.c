// SPDX-License-Identifier: MIT
//
// Codes, paths and messages of violations as text.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "report.h"
#include "schema.h"
#include "tvix_build.h"
#include "variant.h"

const char* tvixb_code_name(uint8_t code) {
  return code < TVIXB_CODE_COUNT ? tvixb_codes[code].name : NULL;
}

// A buffer of limited capacity. `size` is the length of the complete text.
typedef struct text {
  char* out;
  size_t capacity;
  size_t size;
} text;

__attribute__((format(printf, 2, 3))) static void put(text* text,
                                                      const char* format, ...) {
  size_t room = text->size < text->capacity ? text->capacity - text->size : 0;
  va_list arguments;
  va_start(arguments, format);
  int size =
      vsnprintf(room ? text->out + text->size : NULL, room, format, arguments);
  va_end(arguments);
  if (size > 0) text->size += (size_t)size;
}

// Returns the type of a field's embedded message, or NULL; the root's if
// `field` is NULL.
static const tvixb_message* message_in(const tvixb_kind* kind,
                                       const tvixb_field* field,
                                       const tvixb_violation* violation) {
  const tvixb_message* message = field ? field->message : kind->message;
  return message && message->variants
             ? tvixb_variant_message(message, violation->variant)
             : message;
}

// Returns the last field of the path, NULL for the root. Writes the path to
// `path` if that is not NULL.
static const tvixb_field* walk(const tvixb_kind* kind,
                               const tvixb_violation* violation, text* path) {
  const tvixb_field* field = NULL;
  unsigned indices = 0;
  for (unsigned i = 0; i < violation->depth; i++) {
    field = &message_in(kind, field, violation)->fields[violation->field[i]];
    if (!path) continue;
    put(path, "%s%s", i ? "." : "", field->name);
    if (violation->indexed >> i & 1) {
      put(path, "[%" PRIu64 "]", violation->index[indices++]);
    }
  }
  return field;
}

size_t tvixb_violation_path(const tvixb_kind* kind,
                            const tvixb_violation* violation, char* out,
                            size_t capacity) {
  text path = {out, capacity, 0};
  put(&path, "%s", "");
  walk(kind, violation, &path);
  return path.size;
}

// Writes the sample of the value or key in quotes. Escapes bytes that are not
// printable ASCII.
static void put_quoted(text* text, const tvixb_violation* violation) {
  put(text, "\"");
  for (unsigned i = 0; i < violation->sample_size; i++) {
    unsigned char c = violation->sample[i];
    if (c == '"' || c == '\\') {
      put(text, "\\%c", c);
    } else if (c >= 0x20 && c < 0x7f) {
      put(text, "%c", c);
    } else {
      put(text, "\\x%02x", c);
    }
  }
  if (violation->number > violation->sample_size) {
    put(text, "\"... (%" PRIu64 " bytes)", violation->number);
  } else {
    put(text, "\"");
  }
}

// Writes the sample of a digest in hexadecimal.
static void put_hex(text* text, const tvixb_violation* violation) {
  if (!violation->sample_size) put(text, "\"\"");
  for (unsigned i = 0; i < violation->sample_size; i++) {
    put(text, "%02x", violation->sample[i]);
  }
  if (violation->number > violation->sample_size) put(text, "...");
}

static void put_members(text* text, const tvixb_message* message) {
  const char* between = "";
  for (unsigned i = 1; i <= message->number_max; i++) {
    if (!message->fields[i].oneof) continue;
    put(text, "%s%s", between, message->fields[i].name);
    between = ", ";
  }
}

static void put_required(text* text, const tvixb_kind* kind,
                         const tvixb_violation* violation) {
  const tvixb_field* field = walk(kind, violation, NULL);
  const tvixb_message* message = message_in(kind, field, violation);
  if (message && tvixb_message_has_oneof(message)) {
    put(text, "expected one of ");
    put_members(text, message);
    put(text, " to be set, found none");
    return;
  }
  put(text, "expected %s, found none",
      !field || field->repeated           ? "at least one element"
      : field->type == TVIXB_TYPE_MESSAGE ? "a message"
                                          : "a non-empty value");
}

// Only the root's name is known: schemas share the tables of embedded messages.
static void put_unknown(text* text, const tvixb_kind* kind,
                        const tvixb_violation* violation) {
  put(text,
      "expected only fields of %s, found field %" PRIu64 " with wire type %u",
      violation->depth ? "this message" : kind->name, violation->number >> 3,
      (unsigned)violation->number & 7);
}

// Writes the message for a number, alone or in a packed list.
static void put_number(text* text, const tvixb_field* field,
                       const tvixb_violation* violation) {
  if (violation->code == TVIXB_CODE_NOT_SORTED) {
    put(text,
        "expected numbers in ascending order, found %" PRIu64
        " after a greater number",
        violation->number);
  } else if (violation->code == TVIXB_CODE_DUPLICATE) {
    put(text, "expected unique numbers, found duplicate %" PRIu64,
        violation->number);
  } else if (field->type == TVIXB_TYPE_BOOL) {
    put(text, "expected %s, found %s", field->rule->expected,
        violation->number ? "true" : "false");
  } else {
    put(text, "expected %s, found %" PRIu64, field->rule->expected,
        violation->number);
  }
}

// Writes the message for an element that the list lacks or must not have.
static void put_length(text* text, const tvixb_length_rule* rule,
                       const tvixb_violation* violation) {
  put(text, "expected %s (%" PRIu64 "), found %s", rule->expected,
      violation->number,
      violation->code == rule->missing_code ? "fewer" : "more");
}

// Returns whether a violation is one of its kind's length rule.
static bool is_of_length(const tvixb_kind* kind,
                         const tvixb_violation* violation) {
  const tvixb_length_rule* rule = &kind->length;
  return rule->field && violation->depth == 1 &&
         violation->field[0] == rule->field &&
         (violation->code == rule->missing_code ||
          violation->code == rule->unexpected_code);
}

// Returns whether a violation is that of a part of a graph with another variant
// than the other parts. The part has a variant, so its selector is valid.
static bool is_of_variant(const tvixb_kind* kind,
                          const tvixb_violation* violation) {
  return kind->graph && violation->variant && violation->depth == 2 &&
         violation->code == kind->graph->variant_code &&
         violation->field[1] == kind->graph->part->message->selector;
}

// Writes the message for a value or for the key of a list element.
static void put_value(text* text, const tvixb_kind* kind,
                      const tvixb_field* field,
                      const tvixb_violation* violation) {
  const tvixb_code_row* row = &tvixb_codes[violation->code];
  if (row->before) {
    put(text, "%s", row->before);
  } else if (is_of_variant(kind, violation)) {
    put(text, "expected the %s of the elements before, found ", field->name);
  } else {
    put(text, "expected %s, found ", field ? field->rule->expected : "");
  }
  if (row->shown == TVIXB_SHOWN_VALUE) put_quoted(text, violation);
  if (row->shown == TVIXB_SHOWN_HEX) put_hex(text, violation);
  if (row->shown == TVIXB_SHOWN_NUMBER) {
    put(text, "%" PRIu64, violation->number);
  }
  if (row->after) put(text, "%s", row->after);
}

size_t tvixb_violation_message(const tvixb_kind* kind,
                               const tvixb_violation* violation, char* out,
                               size_t capacity) {
  text text = {out, capacity, 0};
  const tvixb_field* field = walk(kind, violation, NULL);
  if (field && tvixb_field_is_number(field)) {
    put_number(&text, field, violation);
    return text.size;
  }
  if (is_of_length(kind, violation)) {
    put_length(&text, &kind->length, violation);
    return text.size;
  }
  switch (violation->code) {
    case TVIXB_CODE_MALFORMED:
      put(&text,
          "expected a serialized %s, found bytes that do not decode at offset "
          "%" PRIu64,
          field ? "message" : kind->name, violation->number);
      break;
    case TVIXB_CODE_UNKNOWN_FIELD:
      put_unknown(&text, kind, violation);
      break;
    case TVIXB_CODE_REQUIRED:
      put_required(&text, kind, violation);
      break;
    default:
      put_value(&text, kind, field, violation);
  }
  return text.size;
}
