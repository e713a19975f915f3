// SPDX-License-Identifier: MIT
//
// Violations in words.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "report.h"
#include "rules.h"
#include "schema.h"
#include "tvix_build.h"

static const char* const code_names[] = {
    [TVIXB_CODE_MALFORMED] = "malformed",
    [TVIXB_CODE_UNKNOWN_FIELD] = "unknown_field",
    [TVIXB_CODE_REQUIRED] = "required",
    [TVIXB_CODE_INVALID_ARG] = "invalid_arg",
    [TVIXB_CODE_INVALID_NAME] = "invalid_name",
    [TVIXB_CODE_INVALID_DIGEST] = "invalid_digest",
    [TVIXB_CODE_INVALID_SYMLINK_TARGET] = "invalid_symlink_target",
    [TVIXB_CODE_INVALID_ENV_KEY] = "invalid_env_key",
    [TVIXB_CODE_INVALID_ENV_VALUE] = "invalid_env_value",
    [TVIXB_CODE_INVALID_PATH] = "invalid_path",
    [TVIXB_CODE_NOT_SORTED] = "not_sorted",
    [TVIXB_CODE_DUPLICATE] = "duplicate",
    [TVIXB_CODE_OUTPUT_IS_INPUT] = "output_is_input",
    [TVIXB_CODE_MISSING_OUTPUT] = "missing_output",
    [TVIXB_CODE_UNEXPECTED_OUTPUT] = "unexpected_output",
    [TVIXB_CODE_SIZE_OVERFLOW] = "size_overflow",
    [TVIXB_CODE_INVALID_NEEDLE] = "invalid_needle",
    [TVIXB_CODE_NEEDLES_MISMATCH] = "needles_mismatch",
};

const char* tvixb_code_name(uint8_t code) {
  return code < sizeof code_names / sizeof *code_names ? code_names[code]
                                                       : NULL;
}

// Text of limited room; counts what it would need.
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

// The message that is a field's value, or the whole message.
static const tvixb_message* message_in(const tvixb_kind* kind,
                                       const tvixb_field* field) {
  return field ? field->message : kind->message;
}

// The field at the end of the path, NULL for the message itself.
static const tvixb_field* walk(const tvixb_kind* kind,
                               const tvixb_violation* violation, text* path) {
  const tvixb_field* field = NULL;
  unsigned indices = 0;
  for (unsigned i = 0; i < violation->depth; i++) {
    field = &message_in(kind, field)->fields[violation->field[i]];
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

// The value or key, quoted; what is not printable ASCII is escaped.
static void put_found(text* text, const tvixb_violation* violation) {
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
  if (violation->found > violation->sample_size) {
    put(text, "\"... (%" PRIu64 " bytes)", violation->found);
  } else {
    put(text, "\"");
  }
}

static void put_members(text* text, const tvixb_message* message) {
  const char* between = "";
  for (unsigned i = 1; i <= TVIXB_FIELD_NUMBER_MAX; i++) {
    if (!message->fields[i].oneof) continue;
    put(text, "%s%s", between, message->fields[i].name);
    between = ", ";
  }
}

static void put_required(text* text, const tvixb_kind* kind,
                         const tvixb_violation* violation) {
  const tvixb_field* field = walk(kind, violation, NULL);
  const tvixb_message* message = message_in(kind, field);
  if (message && message->oneof) {
    put(text, "expected one of ");
    put_members(text, message);
    put(text, " to be set, found none");
    return;
  }
  put(text, "expected %s, found none",
      !field || field->repeated           ? "at least one element"
      : field->type == TVIXB_TYPE_MESSAGE ? "this message to be there"
                                          : "a value that is not empty");
}

// Only the root has a name that is its own: schemas share tables.
static void put_unknown(text* text, const tvixb_kind* kind,
                        const tvixb_violation* violation) {
  put(text,
      "expected the fields of %s alone, found field %" PRIu64
      " with wire type %u",
      violation->depth ? "this message" : kind->name, violation->found >> 3,
      (unsigned)violation->found & 7);
}

// Of a number in a list.
static void put_number(text* text, const tvixb_violation* violation) {
  const char* format =
      "expected an index of the request's refscan_needles, "
      "found %" PRIu64;
  if (violation->code == TVIXB_CODE_NOT_SORTED) {
    format = "expected ascending numbers, found %" PRIu64 " after a larger one";
  } else if (violation->code == TVIXB_CODE_DUPLICATE) {
    format = "expected each number once, found %" PRIu64 " again";
  }
  put(text, format, violation->found);
}

// The words before a key that violates a rule of lists; NULL for other rules.
static const char* words_of_key(uint8_t code) {
  switch (code) {
    case TVIXB_CODE_NOT_SORTED:
      return "keys in ascending order of their bytes, found after a larger "
             "one";
    case TVIXB_CODE_DUPLICATE:
      return "each key once, found again";
    case TVIXB_CODE_OUTPUT_IS_INPUT:
      return "an output where no input is, found an input at";
    case TVIXB_CODE_MISSING_OUTPUT:
      return "an output node for each output of the request, found none for";
    case TVIXB_CODE_UNEXPECTED_OUTPUT:
      return "outputs of the request alone, found";
    default:
      return NULL;
  }
}

// Of a value, or of the key of a list's element.
static void put_value(text* text, const tvixb_field* field,
                      const tvixb_violation* violation) {
  const char* words = words_of_key(violation->code);
  if (words) {
    put(text, "expected %s ", words);
    put_found(text, violation);
    return;
  }
  put(text, "expected %s, found ",
      field ? tvixb_rules[field->rule].expected : "");
  if (violation->code == TVIXB_CODE_INVALID_DIGEST) {
    put(text, "%" PRIu64 " bytes", violation->found);
  } else {
    put_found(text, violation);
  }
}

size_t tvixb_violation_message(const tvixb_kind* kind,
                               const tvixb_violation* violation, char* out,
                               size_t capacity) {
  text text = {out, capacity, 0};
  const tvixb_field* field = walk(kind, violation, NULL);
  if (field && field->type == TVIXB_TYPE_PACKED) {
    put_number(&text, violation);
    return text.size;
  }
  bool missing = violation->code == TVIXB_CODE_MISSING_OUTPUT;
  if (field && field->count == TVIXB_COUNT_OUTPUTS &&
      (missing || violation->code == TVIXB_CODE_UNEXPECTED_OUTPUT)) {
    put(&text, "expected %" PRIu64 " outputs, as the request has, found %s",
        violation->found, missing ? "fewer" : "more");
    return text.size;
  }
  switch (violation->code) {
    case TVIXB_CODE_NEEDLES_MISMATCH:
      put(&text, "expected none or one for each output, found %" PRIu64,
          violation->found);
      break;
    case TVIXB_CODE_MALFORMED:
      put(&text,
          "expected a serialized %s, found bytes that do not decode at byte "
          "%" PRIu64,
          kind->name, violation->found);
      break;
    case TVIXB_CODE_UNKNOWN_FIELD:
      put_unknown(&text, kind, violation);
      break;
    case TVIXB_CODE_REQUIRED:
      put_required(&text, kind, violation);
      break;
    case TVIXB_CODE_SIZE_OVERFLOW:
      put(&text,
          "expected a size below 2^64, found more elements below the "
          "directory");
      break;
    default:
      put_value(&text, field, violation);
  }
  return text.size;
}
